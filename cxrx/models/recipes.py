"""What published networks were trained on: their findings and inputs. Data only; needs no torch."""

from __future__ import annotations

from cxrx.specs import InputSpec

NIH_LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""The 14 findings of ChestX-ray14 (Wang et al., CVPR 2017), in the order that all published checkpoints use."""

CHEXNET_INPUT = InputSpec(resize=256)
"""Resize(256), crop 224, ImageNet's mean and std; its authors average ten crops, ``cxrx predict --ten-crop``."""

MAE_INPUT = InputSpec(resize=256, interpolation="bicubic", mean=(0.5056,), std=(0.252,))
"""medical_mae: Xiao et al., Delving into Masked Autoencoders for Multi-Label Thorax Disease Classification, 2023."""

PNEUMONIA_INPUT = InputSpec(resize=256, mean=(0.5,), std=(0.5,), clahe=(4.0, 7, 7))
"""The ViT pneumonia classifier: CLAHE (clip 4, 7 x 7 tiles), 256, crop 224."""

XRV_INPUT = InputSpec(channels=1, mean=(0.5,), std=(1 / 2048,))
"""torchxrayvision: one channel in [-1024, 1024]."""

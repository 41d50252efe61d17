"""The built-in explainers. Cheap to import: torch and the methods load inside `build`."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

from cxrx.explainers.option_types import (
    AttentionOptions,
    CamOptions,
    CentreOptions,
    ChannelSweepOptions,
    DeepLiftOptions,
    ExtremalOptions,
    GradCamPlusOptions,
    GradientShapOptions,
    IntegratedGradientsOptions,
    LayerOptions,
    LimeOptions,
    NoOptions,
    OcclusionOptions,
    RandomOptions,
    RiseOptions,
    RolloutOptions,
    ScoreCamOptions,
    SmoothGradOptions,
    SuperpixelOptions,
)
from cxrx.specs import Explainer, ExplainerSpec


def _lazy(module: str, function: str, *arguments: Any) -> Callable[[Any], Explainer]:
    """Return a `build` that imports `function` of this package's `module` when called."""

    def build(options: Any) -> Explainer:
        explainer: Explainer = getattr(import_module(f"cxrx.explainers.{module}"), function)(*arguments, options)
        return explainer

    return build


_CAM = frozenset({"gradients", "cam"})
_LAYER = frozenset({"cam"})
_ATTENTION = frozenset({"attention"})
_NOTHING: frozenset[str] = frozenset()


_FORWARD = 3.0
"""Forward passes that cost as much as one with its backward pass."""


def _none(_options: Any) -> float:
    return 0


def _samples(options: SmoothGradOptions) -> float:
    return options.n


def _points(options: IntegratedGradientsOptions) -> float:
    return options.steps


def _relevance_pass(_options: Any) -> float:
    return 5  # in float64, with two more products for every layer


def _windows(options: OcclusionOptions) -> float:
    return (1 + math.ceil((224 - options.window) / options.stride)) ** 2 / _FORWARD


def _random_masks(options: RiseOptions) -> float:
    return options.masks / _FORWARD


def _perturbed(options: SuperpixelOptions) -> float:
    return options.samples / _FORWARD


def _channels(_options: ChannelSweepOptions) -> float:
    return 1024 / _FORWARD  # of DenseNet-121; the spec cannot know the model


def _masks(options: ExtremalOptions) -> float:
    return options.steps / options.every * len(options.areas) * (2 if options.variant == "dual" else 1)


BUILTIN_EXPLAINERS: tuple[ExplainerSpec, ...] = (
    ExplainerSpec(
        "gradcam",
        _lazy("cam", "build_cam", "gradcam"),
        CamOptions,
        needs=_CAM,
        aliases=("grad-cam",),
        summary="activations of the last spatial layer, each channel weighed by its mean gradient",
        citation="Selvaraju et al., Grad-CAM, ICCV 2017",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "gradcam++",
        _lazy("cam", "build_cam", "gradcam++"),
        GradCamPlusOptions,
        needs=_CAM,
        aliases=("gradcampp", "grad-cam++"),
        summary="Grad-CAM with weights that favour small objects and several of them",
        citation="Chattopadhay et al., Grad-CAM++, WACV 2018",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "hirescam",
        _lazy("cam", "build_cam", "hirescam"),
        CamOptions,
        needs=_CAM,
        summary="gradient times activation, cell by cell",
        citation="Draelos and Carin, HiResCAM, arXiv 2011.08891",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "layercam",
        _lazy("cam", "build_cam", "layercam"),
        CamOptions,
        needs=_CAM,
        summary="positive gradient times activation, cell by cell",
        citation="Jiang et al., LayerCAM, IEEE TIP 2021",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "xgradcam",
        _lazy("cam", "build_cam", "xgradcam"),
        CamOptions,
        needs=_CAM,
        summary="Grad-CAM with gradients weighed by the share of each activation",
        citation="Fu et al., Axiom-based Grad-CAM, BMVC 2020",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "eigencam",
        _lazy("rarer_cam", "build_rarer_cam", "eigencam"),
        LayerOptions,
        needs=_LAYER,
        aliases=("eigen-cam",),
        summary="first principal component of the last spatial layer; the same for every finding",
        citation="Muhammad and Yeasin, Eigen-CAM, IJCNN 2020",
        signed=True,
        relu=True,
        per_finding=False,
    ),
    ExplainerSpec(
        "scorecam",
        _lazy("rarer_cam", "build_rarer_cam", "scorecam"),
        ScoreCamOptions,
        needs=_LAYER,
        evaluations=_channels,
        aliases=("score-cam",),
        summary="each channel weighed by the score of the picture seen through it",
        citation="Wang et al., Score-CAM, CVPR workshops 2020",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "ablationcam",
        _lazy("rarer_cam", "build_rarer_cam", "ablationcam"),
        ChannelSweepOptions,
        needs=_LAYER,
        evaluations=_channels,
        aliases=("ablation-cam",),
        summary="each channel weighed by how far the score falls without it",
        citation="Desai and Ramaswamy, Ablation-CAM, WACV 2020",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "fullgrad",
        _lazy("rarer_cam", "build_rarer_cam", "fullgrad"),
        NoOptions,
        needs=frozenset({"gradients", "convolutions"}),
        summary="gradient times input, and gradient times bias of every convolution and batch norm",
        citation="Srinivas and Fleuret, Full-Gradient Representation, NeurIPS 2019",
        space="input",
    ),
    ExplainerSpec(
        "saliency",
        _lazy("gradient", "build_saliency"),
        NoOptions,
        summary="gradient of the score with respect to each pixel",
        citation="Simonyan et al., Deep Inside Convolutional Networks, ICLR workshop 2014",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "inputxgrad",
        _lazy("gradient", "build_inputxgrad"),
        NoOptions,
        summary="pixel times gradient",
        citation="Shrikumar et al., Not Just a Black Box, arXiv 1605.01713",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "smoothgrad",
        _lazy("gradient", "build_smoothgrad", "mean"),
        SmoothGradOptions,
        evaluations=_samples,
        stochastic=True,
        summary="mean gradient over noisy copies of the picture",
        citation="Smilkov et al., SmoothGrad, arXiv 1706.03825",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "smoothgrad-squared",
        _lazy("gradient", "build_smoothgrad", "square"),
        SmoothGradOptions,
        evaluations=_samples,
        stochastic=True,
        summary="mean squared gradient over noisy copies of the picture",
        citation="Hooker et al., A Benchmark for Interpretability Methods, NeurIPS 2019",
        space="input",
    ),
    ExplainerSpec(
        "vargrad",
        _lazy("gradient", "build_smoothgrad", "variance"),
        SmoothGradOptions,
        evaluations=_samples,
        stochastic=True,
        summary="variance of the gradient over noisy copies of the picture",
        citation="Adebayo et al., Local Explanation Methods for Deep Neural Networks, ICLR workshop 2018",
        space="input",
    ),
    ExplainerSpec(
        "integrated-gradients",
        _lazy("gradient", "build_integrated_gradients"),
        IntegratedGradientsOptions,
        evaluations=_points,
        aliases=("ig",),
        summary="gradient integrated along the way from a baseline to the picture",
        citation="Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "gradientshap",
        _lazy("captum_methods", "build_gradientshap"),
        GradientShapOptions,
        evaluations=_samples,
        stochastic=True,
        aliases=("gradient-shap",),
        summary="gradients at random points between noisy pictures and baselines",
        citation="Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "deeplift",
        _lazy("captum_methods", "build_deeplift"),
        DeepLiftOptions,
        summary="differences from a baseline, carried back through every activation (rescale rule)",
        citation="Shrikumar et al., DeepLIFT, ICML 2017",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "extremal",
        _lazy("extremal", "build_extremal"),
        ExtremalOptions,
        evaluations=_masks,
        aliases=("extremal-perturbation", "ep"),
        summary="smooth masks of fixed area that keep (or lower) the score best",
        citation="Fong et al., Understanding Deep Networks via Extremal Perturbations and Smooth Masks, ICCV 2019",
        space="input",
    ),
    ExplainerSpec(
        "rise",
        _lazy("sweep", "build_rise"),
        RiseOptions,
        needs=_NOTHING,
        evaluations=_random_masks,
        stochastic=True,
        summary="mean of random masks, each weighed by the score of what it leaves; all findings from one sweep",
        citation="Petsiuk et al., RISE, BMVC 2018",
        signed=True,
        relu=True,
        space="input",
    ),
    ExplainerSpec(
        "occlusion",
        _lazy("sweep", "build_occlusion"),
        OcclusionOptions,
        needs=_NOTHING,
        evaluations=_windows,
        summary="how far the score falls where a square covers the picture; all findings from one sweep",
        citation="Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "lime",
        _lazy("captum_methods", "build_lime"),
        LimeOptions,
        needs=_NOTHING,
        evaluations=_perturbed,
        stochastic=True,
        summary="a linear model of the score, fitted to the picture with superpixels hidden",
        citation="Ribeiro et al., Why Should I Trust You?, KDD 2016",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "kernelshap",
        _lazy("captum_methods", "build_kernelshap"),
        SuperpixelOptions,
        needs=_NOTHING,
        evaluations=_perturbed,
        stochastic=True,
        aliases=("kernel-shap",),
        summary="Shapley values of superpixels, by a weighted linear fit",
        citation="Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017",
        signed=True,
        space="input",
    ),
    ExplainerSpec(
        "attention",
        _lazy("attention", "build_attention"),
        AttentionOptions,
        needs=_ATTENTION,
        summary="attention of the last layer to the patches; the same for every finding",
        citation="Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021",
        per_finding=False,
    ),
    ExplainerSpec(
        "rollout",
        _lazy("attention", "build_rollout"),
        RolloutOptions,
        needs=_ATTENTION,
        aliases=("attention-rollout",),
        summary="attention multiplied through the layers; the same for every finding",
        citation="Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020",
        per_finding=False,
    ),
    ExplainerSpec(
        "chefer",
        _lazy("attention", "build_chefer"),
        NoOptions,
        needs=frozenset({"attention", "gradients"}),
        summary="attention weighed by its gradient and multiplied through the layers",
        citation="Chefer et al., Generic Attention-Model Explainability, ICCV 2021",
    ),
    ExplainerSpec(
        "chefer-lrp",
        _lazy("relevance", "build_chefer_lrp"),
        NoOptions,
        needs=frozenset({"attention", "gradients", "relevance"}),
        evaluations=_relevance_pass,
        summary="as chefer, with relevance carried back through every layer in place of the attention itself",
        citation="Chefer et al., Transformer Interpretability Beyond Attention Visualization, CVPR 2021",
    ),
    ExplainerSpec(
        "random",
        _lazy("controls", "build_random"),
        RandomOptions,
        needs=_NOTHING,
        evaluations=_none,
        stochastic=True,
        summary="control: uniform noise on a coarse grid, other noise for each picture and finding",
        control=True,
    ),
    ExplainerSpec(
        "edge",
        _lazy("controls", "build_edge"),
        NoOptions,
        needs=_NOTHING,
        evaluations=_none,
        summary="control: Sobel magnitude of the picture",
        citation="Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018",
        space="input",
        control=True,
        per_finding=False,
    ),
    ExplainerSpec(
        "centre",
        _lazy("controls", "build_centre"),
        CentreOptions,
        needs=_NOTHING,
        evaluations=_none,
        aliases=("center",),
        summary="control: a Gaussian at the middle of the picture",
        space="input",
        control=True,
        per_finding=False,
    ),
)

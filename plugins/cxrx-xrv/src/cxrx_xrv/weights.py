"""The weights of torchxrayvision: names, findings and sizes. Data only; the package itself is not imported here."""

from dataclasses import dataclass

OUTPUTS = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
"""The 18 outputs of every network, in order; most networks were trained on some of them only."""

_CHEXPERT = (0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17)


@dataclass(frozen=True)
class Weights:
    """One set of weights.

    Attributes
    ----------
    name
        As torchxrayvision calls it.
    file
        How its file's name begins.
    trained
        Which of the 18 outputs were trained.
    """

    name: str
    data: str
    file: str
    trained: tuple[int, ...] = tuple(range(len(OUTPUTS)))
    architecture: str = "densenet121"
    size: int = 224

    @property
    def labels(self) -> tuple[str, ...]:
        """The trained findings, in order."""
        return tuple(OUTPUTS[i] for i in self.trained)


WEIGHTS = (
    Weights("densenet121-res224-all", "seven sets together", "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121"),
    Weights("densenet121-res224-nih", "NIH ChestX-ray14", "nih-densenet121", tuple(range(14))),
    Weights("densenet121-res224-pc", "PadChest", "pc-densenet121", (*range(14), 15)),
    Weights("densenet121-res224-chex", "CheXpert", "chex-densenet121", _CHEXPERT),
    Weights("densenet121-res224-rsna", "RSNA Pneumonia", "kaggle-densenet121", (8, 16)),
    Weights("densenet121-res224-mimic_nb", "MIMIC-CXR (NegBio labels)", "mimic_nb-densenet121", _CHEXPERT),
    Weights("densenet121-res224-mimic_ch", "MIMIC-CXR (CheXpert labels)", "mimic_ch-densenet121", _CHEXPERT),
    Weights("resnet50-res512-all", "five sets together", "pc-nih-rsna-siim-vin-resnet50", architecture="resnet50",
            size=512),
)  # fmt: skip
"""All that torchxrayvision offers as classifiers of its own."""


def find(name: str) -> Weights | None:
    """Return the weights called `name`, or whose file is called so; None where there are none."""
    return next((w for w in WEIGHTS if name == w.name or name.startswith(f"{w.file}-")), None)

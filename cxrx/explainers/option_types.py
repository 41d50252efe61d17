"""Options of the built-in explainers: frozen dataclasses whose defaults are the methods' own. Cheap to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

Baseline: TypeAlias = Literal["black", "white", "mean", "blur"]
"""Pictures without evidence; see :mod:`cxrx.explainers.baselines`."""
Dtype: TypeAlias = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class NoOptions:
    """For methods without options."""


@dataclass(frozen=True)
class LayerOptions:
    """For methods that read one layer.

    Attributes
    ----------
    layer
        Dotted name of the layer; none: the last one with a spatial output.
    """

    layer: str | None = None


@dataclass(frozen=True)
class CamOptions(LayerOptions):
    """Grad-CAM and its relatives.

    Attributes
    ----------
    aug_smooth
        Mean map of six versions of the picture: as it is and mirrored, each prepared tensor times 0.9, 1 and 1.1.
        Raw maps are averaged, where pytorch-grad-cam first brings each to [0, 1]. A mirrored chest is situs inversus.
    eigen_smooth
        First principal component of the weighted activations in place of their sum; its sign is that of the sum.
    """

    aug_smooth: bool = False
    eigen_smooth: bool = False


@dataclass(frozen=True)
class GradCamPlusOptions(CamOptions):
    """Grad-CAM++.

    Attributes
    ----------
    eps
        Added to the denominator of the weights, which the paper leaves bare; 1e-6 is what pytorch-grad-cam adds.
    """

    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.eps <= 0:
            raise ValueError("eps must be greater than 0")


@dataclass(frozen=True)
class ChannelSweepOptions(LayerOptions):
    """CAM methods that run the network once for every channel of the layer.

    Attributes
    ----------
    batch
        Channels a forward pass.
    """

    batch: int = 16

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError("batch must be at least 1")


@dataclass(frozen=True)
class ScoreCamOptions(ChannelSweepOptions):
    """Score-CAM.

    Attributes
    ----------
    align_corners
        Upsample the channels as pytorch-grad-cam does, the middles of the outermost cells on the picture's corners.
    """

    align_corners: bool = False


@dataclass(frozen=True)
class SmoothGradOptions:
    """SmoothGrad and its relatives.

    Attributes
    ----------
    n
        Noisy copies of each picture.
    sigma
        Standard deviation of the noise, as a fraction of the range of each picture's prepared tensor.
    range
        ``p1p99``: from the 1st to the 99th percentile, so that markers and collimation do not set the noise;
        ``minmax``: as published.
    dtype
        ``bf16``: the network's passes in bfloat16, faster and not the same.
    """

    n: int = 50
    sigma: float = 0.15
    range: Literal["p1p99", "minmax"] = "p1p99"
    dtype: Dtype = "fp32"

    def __post_init__(self) -> None:
        if self.n < 1 or self.sigma < 0:
            raise ValueError("n must be at least 1 and sigma at least 0")


@dataclass(frozen=True)
class IntegratedGradientsOptions:
    """Integrated gradients.

    Attributes
    ----------
    steps
        Points on the straight path from the baseline to the picture.
    baseline
        ``black`` and ``white`` in pixels; ``mean``: the picture's mean grey; ``blur``: the picture blurred with a
        Gaussian of 20 px at 224 px.
    rule
        Quadrature along the path.
    dtype
        ``bf16``: the network's passes in bfloat16, faster and not the same.
    """

    steps: int = 50
    baseline: Baseline = "black"
    rule: Literal["gausslegendre", "midpoint"] = "gausslegendre"
    dtype: Dtype = "fp32"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


_PUBLISHED_EXTREMAL: Mapping[str, Any] = {
    "areas": (0.025, 0.05, 0.1, 0.2),
    "every": 1,
    "stop": False,
    "area_on": "padded",
}


@dataclass(frozen=True)
class ExtremalOptions:
    """Extremal perturbations.

    Attributes
    ----------
    areas
        Fractions of the picture that a mask may keep; one mask for each, and the map is their sum.
    steps
        Steps of gradient ascent. The path is the published one of 800; with fewer steps its strides are longer:
        learning rate and growth of the area weight are scaled by 800/steps.
    every
        The model is evaluated at every so many steps; those between go on with its last gradient, and with the exact
        one of the area, which costs little.
    stop
        Let a mask that has settled go four times as fast to the end of the path.
    variant
        ``preserve``: the score of what the mask keeps is to be high; ``delete``: the score without it low; ``dual``.
    perturbation
        What takes the place of what is not kept: ``blur``, or ``fade`` (to zero, the mean grey).
    reward
        ``simple``: the score; ``contrastive``: the raw logit minus the highest other one (wrong for findings that occur
        together).
    area_on
        ``visible``: the mask's mean over the picture is held at the area; ``padded``: as published, the area is that
        of the picture with its margin, and only approached.
    flip
        Mirror the picture at even steps, as the published code does; on a chest film this is situs inversus.
    smooth
        Width of the Gaussian that smooths the map, as a fraction of the picture's short side. Masks stay unsmoothed.
    preset
        ``fast``: the defaults above; ``published``: the model evaluated at every one of 800 steps, no early stop, area
        on the padded picture, areas 0.025, 0.05, 0.1, 0.2; ``torchray``: the same with flips. Options given beside a
        preset override it.
    dtype
        ``bf16``: the network's passes in bfloat16, faster and not the same.
    """

    areas: tuple[float, ...] = (0.1,)
    steps: int = 800
    every: int = 4
    stop: bool = True
    variant: Literal["preserve", "delete", "dual"] = "preserve"
    perturbation: Literal["blur", "fade"] = "blur"
    reward: Literal["simple", "contrastive"] = "simple"
    area_on: Literal["visible", "padded"] = "visible"
    flip: bool = False
    smooth: float = 0.09
    dtype: Dtype = "fp32"
    preset: Literal["fast", "published", "torchray"] = "fast"

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {},
        "published": _PUBLISHED_EXTREMAL,
        "torchray": {**_PUBLISHED_EXTREMAL, "flip": True},
    }

    def __post_init__(self) -> None:
        if not self.areas or not all(0 < area < 1 for area in self.areas):
            raise ValueError("areas must be fractions between 0 and 1")
        if self.steps < 1 or self.every < 1 or self.smooth < 0:
            raise ValueError("steps and every must be at least 1 and smooth at least 0")


@dataclass(frozen=True)
class GradientShapOptions:
    """GradientSHAP.

    Attributes
    ----------
    n
        Random points on random paths from a baseline to the picture.
    sigma
        Standard deviation of the noise on the picture, as a fraction of the range (p1 to p99) of its prepared tensor.
    baselines
        Of which one is drawn for each point; any of black, white, mean, blur, as for integrated gradients.
    """

    n: int = 50
    sigma: float = 0.1
    baselines: tuple[Baseline, ...] = ("black", "mean", "blur")

    def __post_init__(self) -> None:
        if self.n < 1 or self.sigma < 0 or not self.baselines:
            raise ValueError("n must be at least 1, sigma at least 0, and baselines must name one")


@dataclass(frozen=True)
class DeepLiftOptions:
    """DeepLIFT, rescale rule.

    Attributes
    ----------
    baseline
        What the picture is compared with, as for integrated gradients.
    """

    baseline: Baseline = "blur"


@dataclass(frozen=True)
class OcclusionOptions:
    """Occlusion.

    Attributes
    ----------
    window, stride
        Side of the square that covers the picture, and how far it moves; pixels at 224 px, in proportion for other
        sizes.
    baseline
        What covers, as for integrated gradients.
    dtype
        ``bf16``: the network's passes in bfloat16, faster and not the same.
    """

    window: int = 32
    stride: int = 16
    baseline: Baseline = "mean"
    dtype: Dtype = "fp32"

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            raise ValueError("stride must be at least 1 and at most window, or pixels would stay unseen")


@dataclass(frozen=True)
class RiseOptions:
    """RISE.

    Attributes
    ----------
    masks
        Random masks for each picture.
    cells
        Cells of a mask along the picture's short side.
    keep
        Probability that a cell stays.
    score
        ``logit``: each mask weighed by its score minus the mean over masks, which takes out most of the noise;
        ``probability``: as published, each mask weighed by its probability.
    baseline
        What takes the place of what a mask hides, as for integrated gradients; published: black.
    dtype
        ``bf16``: the network's passes in bfloat16, faster and not the same.
    preset
        ``published``: 4,000 masks, probabilities, black. Options given beside a preset override it.
    """

    masks: int = 1000
    cells: int = 7
    keep: float = 0.5
    score: Literal["logit", "probability"] = "logit"
    baseline: Baseline = "mean"
    dtype: Dtype = "fp32"
    preset: Literal["default", "published"] = "default"

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "published": {"masks": 4000, "score": "probability", "baseline": "black"},
    }

    def __post_init__(self) -> None:
        if self.masks < 1 or not 1 <= self.cells <= 1000 or not 0 < self.keep < 1:
            raise ValueError("masks must be at least 1, cells 1 to 1000, keep between 0 and 1")


@dataclass(frozen=True)
class SuperpixelOptions:
    """LIME and KernelSHAP.

    Attributes
    ----------
    samples
        Pictures with random superpixels hidden, from which a linear model is fitted.
    segments
        About how many superpixels.
    shape
        ``slic``: that follow the picture's edges; ``grid``: squares.
    baseline
        What hides, as for integrated gradients.
    """

    samples: int = 500
    segments: int = 50
    shape: Literal["slic", "grid"] = "slic"
    baseline: Baseline = "mean"

    def __post_init__(self) -> None:
        if self.samples < 2 or self.segments < 2:
            raise ValueError("samples and segments must be at least 2")


@dataclass(frozen=True)
class LimeOptions(SuperpixelOptions):
    """LIME.

    Attributes
    ----------
    alpha
        Of the ridge regression.
    width
        Of the exponential kernel on the share of superpixels hidden: how much nearer pictures count for more.
    """

    alpha: float = 1.0
    width: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0 or self.width <= 0:
            raise ValueError("alpha must be at least 0 and width greater than 0")


@dataclass(frozen=True)
class AttentionOptions:
    """Raw attention.

    Attributes
    ----------
    fuse
        How the heads are fused.
    """

    fuse: Literal["mean", "max"] = "mean"


@dataclass(frozen=True)
class RolloutOptions:
    """Attention rollout.

    Attributes
    ----------
    fuse
        How the heads of a layer are fused.
    discard
        Part of every row's patches, the lowest ones, that is set to 0 before the rows are normalised.
    """

    fuse: Literal["mean", "max", "min"] = "mean"
    discard: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.discard < 1:
            raise ValueError("discard must be at least 0 and less than 1")


@dataclass(frozen=True)
class RandomOptions:
    """Random control.

    Attributes
    ----------
    grid
        Cells along each side of the map; 7 is the grid of a CAM at 224 px.
    """

    grid: int = 7

    def __post_init__(self) -> None:
        if not 1 <= self.grid <= 1000:
            raise ValueError("grid must be 1 to 1000")


@dataclass(frozen=True)
class CentreOptions:
    """Centre control.

    Attributes
    ----------
    sigma
        Width of the Gaussian, as a fraction of each side.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise ValueError("sigma must be greater than 0")

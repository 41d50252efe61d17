"""The built-in explainers and their options. Cheap to import: torch and the methods load inside `build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal

from cxrx.specs import Explainer, ExplainerSpec

# ---------------------------------------------------------------------------------------------------------------------
# Options


@dataclass(frozen=True)
class NoOptions:
    """For methods without options."""


@dataclass(frozen=True)
class GradCamPlusOptions:
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
    """

    n: int = 50
    sigma: float = 0.15
    range: Literal["p1p99", "minmax"] = "p1p99"

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
    """

    steps: int = 50
    baseline: Literal["black", "white", "mean", "blur"] = "black"
    rule: Literal["gausslegendre", "midpoint"] = "gausslegendre"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


@dataclass(frozen=True)
class ExtremalOptions:
    """Extremal perturbations.

    Attributes
    ----------
    areas
        Fractions of the picture that a mask may keep; one mask for each, and the map is their sum.
    steps
        Model evaluations for a mask at most. The path is the published one of 800 steps, taken in fewer and longer
        strides: learning rate and growth of the area weight are scaled by 800/steps.
    stop
        Let a mask that has settled go four times as fast to its end, which halves the steps it takes.
    variant
        ``preserve``: the score of what the mask keeps is to be high; ``delete``: the score without it low; ``dual``.
    perturbation
        What takes the place of what is not kept: ``blur``, or ``fade`` (to zero, the mean grey).
    reward
        ``simple``: the logit; ``contrastive``: the logit minus the highest other one (wrong for findings that occur
        together).
    area_on
        ``visible``: the mask's mean over the picture is held at the area; ``padded``: as published, the area is that
        of the picture with its margin, and only approached.
    flip
        Mirror the picture at even steps, as the published code does; on a chest film this is situs inversus.
    smooth
        Width of the Gaussian that smooths the map, as a fraction of the picture's short side. Masks stay unsmoothed.
    preset
        ``fast``: the defaults above; ``published``: 800 steps without early stop, area on the padded picture, areas
        0.025, 0.05, 0.1, 0.2; ``torchray``: the same with flips. Options given beside a preset override it.
    """

    areas: tuple[float, ...] = (0.1,)
    steps: int = 200
    stop: bool = True
    variant: Literal["preserve", "delete", "dual"] = "preserve"
    perturbation: Literal["blur", "fade"] = "blur"
    reward: Literal["simple", "contrastive"] = "simple"
    area_on: Literal["visible", "padded"] = "visible"
    flip: bool = False
    smooth: float = 0.09
    preset: Literal["fast", "published", "torchray"] = "fast"

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {},
        "published": {"areas": (0.025, 0.05, 0.1, 0.2), "steps": 800, "stop": False, "area_on": "padded"},
        "torchray": {"areas": (0.025, 0.05, 0.1, 0.2), "steps": 800, "stop": False, "area_on": "padded", "flip": True},
    }

    def __post_init__(self) -> None:
        if not self.areas or not all(0 < area < 1 for area in self.areas):
            raise ValueError("areas must be fractions between 0 and 1")
        if self.steps < 1 or self.smooth < 0:
            raise ValueError("steps must be at least 1 and smooth at least 0")


@dataclass(frozen=True)
class AttentionOptions:
    """Raw attention.

    Attributes
    ----------
    fuse
        How the heads are taken together.
    """

    fuse: Literal["mean", "max"] = "mean"


@dataclass(frozen=True)
class RolloutOptions:
    """Attention rollout.

    Attributes
    ----------
    fuse
        How the heads of a layer are taken together.
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
        if self.grid < 1:
            raise ValueError("grid must be at least 1")


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


# ---------------------------------------------------------------------------------------------------------------------
# Specs


def _lazy(module: str, function: str, *arguments: Any) -> Callable[[Any], Explainer]:
    """Return a `build` that imports `function` of this package's `module` when called."""

    def build(options: Any) -> Explainer:
        explainer: Explainer = getattr(import_module(f"cxrx.explainers.{module}"), function)(*arguments, options)
        return explainer

    return build


_CAM = frozenset({"gradients", "cam"})
_ATTENTION = frozenset({"attention"})
_NOTHING: frozenset[str] = frozenset()


def _none(_options: Any) -> float:
    return 0


def _samples(options: SmoothGradOptions) -> float:
    return options.n


def _points(options: IntegratedGradientsOptions) -> float:
    return options.steps


def _masks(options: ExtremalOptions) -> float:
    return options.steps * len(options.areas) * (2 if options.variant == "dual" else 1)


BUILTIN_EXPLAINERS: tuple[ExplainerSpec, ...] = (
    ExplainerSpec(
        "gradcam",
        _lazy("cam", "build_cam", "gradcam"),
        NoOptions,
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
        NoOptions,
        needs=_CAM,
        summary="gradient times activation, cell by cell",
        citation="Draelos and Carin, HiResCAM, arXiv 2011.08891",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "layercam",
        _lazy("cam", "build_cam", "layercam"),
        NoOptions,
        needs=_CAM,
        summary="positive gradient times activation, cell by cell",
        citation="Jiang et al., LayerCAM, IEEE TIP 2021",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "xgradcam",
        _lazy("cam", "build_cam", "xgradcam"),
        NoOptions,
        needs=_CAM,
        summary="Grad-CAM with gradients weighed by the share of each activation",
        citation="Fu et al., Axiom-based Grad-CAM, BMVC 2020",
        signed=True,
        relu=True,
    ),
    ExplainerSpec(
        "saliency",
        _lazy("gradient", "build_saliency"),
        NoOptions,
        summary="gradient of the logit with respect to each pixel",
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
        "attention",
        _lazy("attention", "build_attention"),
        AttentionOptions,
        needs=_ATTENTION,
        summary="attention of the last layer to the patches; the same for every finding",
        citation="Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021",
    ),
    ExplainerSpec(
        "rollout",
        _lazy("attention", "build_rollout"),
        RolloutOptions,
        needs=_ATTENTION,
        aliases=("attention-rollout",),
        summary="attention multiplied through the layers; the same for every finding",
        citation="Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020",
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
    ),
)

"""torchxrayvision in cxrx: its classifiers by name, and a converter for pickled networks."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from cxrx import InputSpec, ModelSpec, hookimpl
from cxrx_xrv.weights import WEIGHTS, Weights

CITATION = (
    "Cohen et al., TorchXRayVision: A library of chest X-ray datasets and models, MIDL 2022; "
    "Cohen et al., On the limits of cross-domain generalization in automated X-ray prediction, MIDL 2020"
)
LICENCE = "Apache-2.0 (torchxrayvision); the data behind the weights have terms of their own"


def build(labels: Sequence[str], architecture: str) -> Any:
    """Return timm's network of one channel; its layers and their names are those of torchxrayvision's."""
    import timm

    return timm.create_model(architecture, pretrained=False, num_classes=len(labels), in_chans=1)


def fetched(name: str) -> Any:
    """Return the file of the weights `name`, fetched and converted first if need be."""
    from cxrx_xrv.convert import fetch_weights

    return fetch_weights(name)


def input_of(weights: Weights) -> InputSpec:
    """Return what a network expects: a square in the middle of the film, in [-1024, 1024]."""
    return InputSpec(size=(weights.size, weights.size), channels=1, mean=(0.5,), std=(1 / 2048,))


@hookimpl
def register_models(register: Any) -> None:
    """Tell cxrx of the classifiers."""
    for weights in WEIGHTS:
        register(
            ModelSpec(
                weights.name,
                partial(build, architecture=weights.architecture),
                weights.labels,
                input_of(weights),
                weights=partial(fetched, weights.name),
                summary=f"torchxrayvision, trained on {weights.data}",
                licence=LICENCE,
                citation=CITATION,
            )
        )


@hookimpl
def register_commands(app: Any) -> None:
    """Tell cxrx of ``cxrx xrv convert``."""
    from cxrx_xrv.command import xrv

    app.add_typer(xrv, name="xrv")

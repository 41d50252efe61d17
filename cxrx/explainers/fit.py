"""Which methods fit which models, and what to say where one does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxrx.errors import UsageError
from cxrx.registry import load as load_registry

if TYPE_CHECKING:
    from cxrx.models.model import Model
    from cxrx.specs import ExplainerSpec


_IN_WORDS = {
    "cam": "a spatial layer",
    "relevance": "plain transformer blocks",
    "convolutions": "convolutions with biases",
}


def check_fit(model: Model, spec: ExplainerSpec, options: Any = None) -> None:
    """Raise UsageError, naming the methods that fit, unless `model` offers what `spec` needs.

    Parameters
    ----------
    options
        Of the method. One that names a layer makes up for a model of which no layer is known.
    """
    offered = model.offers()
    layer = getattr(options, "layer", None)
    if layer is not None:
        model.cam_layer(layer)
    missing = spec.needs - offered - ({"cam"} if layer is not None else set())
    if missing:
        fitting = [other.name for other in load_registry().explainers.values() if other.needs <= offered]
        needed = " and ".join(_IN_WORDS.get(need, need) for need in sorted(missing))
        raise UsageError(
            f"{spec.name} needs {needed}, which {model.name} does not offer",
            f"these fit: {', '.join(fitting)}",
        )


def no_gradient(reason: str) -> UsageError:
    """Return the error of a network through which gradients do not pass, with the methods that do without."""
    specs = load_registry().explainers.values()
    names = [spec.name for spec in specs if not spec.control and not spec.needs & {"gradients", "attention"}]
    return UsageError(reason, f"these need no gradients: {', '.join(names)}")

"""The conformance kit, which finds out whether a plugin keeps the contract of its hooks.

Plain functions return a list of :class:`Outcome`; ``cxrx plugins check NAME`` prints them. In a plugin's own tests the
two pytest classes do the same::

    from cxrx.testing import ExplainerConformance

    class TestMine(ExplainerConformance):
        name = "mine"
"""

from cxrx.testing.conformance import ExplainerConformance, ModelConformance
from cxrx.testing.explainers import check_explainer
from cxrx.testing.models import check_model
from cxrx.testing.named import check_named, check_plugin
from cxrx.testing.others import check_dataset, check_exporter, check_metric, check_reader
from cxrx.testing.outcome import Outcome

__all__ = [
    "ExplainerConformance",
    "ModelConformance",
    "Outcome",
    "check_dataset",
    "check_explainer",
    "check_exporter",
    "check_metric",
    "check_model",
    "check_named",
    "check_plugin",
    "check_reader",
]

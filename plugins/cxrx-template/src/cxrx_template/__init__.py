"""A plugin of cxrx to start from: one module for each kind of thing, and one line here that registers it."""

from cxrx_template.arrays import register_readers
from cxrx_template.lines import register_exporters
from cxrx_template.small import register_models
from cxrx_template.tenth import register_metrics
from cxrx_template.tiles import register_explainers

__all__ = ["register_explainers", "register_exporters", "register_metrics", "register_models", "register_readers"]

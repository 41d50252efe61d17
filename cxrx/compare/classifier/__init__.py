"""How good the classifier is whose explanations are compared."""

from __future__ import annotations

"""Which explanation can be trusted? Localisation, agreement and classification, with baselines and intervals."""

from __future__ import annotations

"""The HTML report of a comparison."""

from __future__ import annotations

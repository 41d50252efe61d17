"""Results in other formats: CSV tables and PNG overlays."""

from __future__ import annotations

"""Intervals over patients, paired tests, means and strata."""

from __future__ import annotations

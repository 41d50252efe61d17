"""Places on a film that a model should, or should not, look at."""

from __future__ import annotations

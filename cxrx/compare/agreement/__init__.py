"""Whether two methods, or two models, say the same of one film."""

from __future__ import annotations

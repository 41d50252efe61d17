"""Whether a map points at the finding: scores, protocols, and baselines that never saw the picture."""

from __future__ import annotations

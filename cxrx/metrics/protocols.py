"""The ways of scoring localisation, by name; see :func:`cxrx.score_localisation`."""

from __future__ import annotations

from typing import Literal, get_args

Protocol = Literal["native", "chexlocalize", "arun"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

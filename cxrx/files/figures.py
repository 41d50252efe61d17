"""How figures that are written look: the same everywhere, whatever ``matplotlibrc`` lies in the working folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw as matplotlib does out of the box: a ``matplotlibrc`` that is found could have TeX run, among others."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        yield

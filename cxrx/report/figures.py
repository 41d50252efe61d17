"""Figures as inline SVG: text stays text, colours are the page's, the same input gives the same bytes.

Colours are drawn as placeholders (``#0100xx``) that become CSS variables, so that a figure follows the page into the
dark. Places are computed from the length of the labels, not from a font, which every reader has another one of.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from cxrx.files.figures import plain_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VARIABLES = ("ink", "soft", "line", "accent", "control", "paper", *(f"c{i}" for i in range(8)))
_HEX = {name: f"#0100{i:02x}" for i, name in enumerate(VARIABLES)}
_DASHES = ("", "5 2.5", "1.5 2", "7 2 1.5 2")  # of the first 8 lines, the next 8 ...
WIDTH = 320  # px of a panel at its natural size
_LETTER = 6.3  # px an average letter takes at 11 px
_LONGEST_LABEL = 22

_RC: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "cxrx", "text.parse_math": False, "font.size": 11, "path.simplify": False,
    "axes.edgecolor": _HEX["soft"], "axes.labelcolor": _HEX["soft"], "xtick.color": _HEX["soft"],
    "ytick.color": _HEX["soft"], "text.color": _HEX["ink"], "grid.color": _HEX["line"], "axes.linewidth": 0.8,
    "xtick.labelsize": 10.5, "ytick.labelsize": 10.5, "axes.labelsize": 11, "axes.spines.top": False,
    "axes.spines.right": False, "figure.facecolor": "none", "axes.facecolor": "none", "lines.color": _HEX["accent"],
    "patch.edgecolor": _HEX["soft"],
}  # fmt: skip


@dataclass(frozen=True)
class Stroke:
    """Colour (a CSS variable's name) and dashes of a line; the same for one name all through the report."""

    colour: str
    dashes: str = ""


@dataclass(frozen=True)
class Figures:
    """Small multiples with one legend and one caption."""

    caption: str
    panels: Sequence[tuple[str, Markup]]  # (heading, SVG)
    legend: Mapping[str, Stroke] = field(default_factory=dict)


@dataclass(frozen=True)
class Dot:
    """A line of a forest plot; `low` and `high` are NaN where there is no interval."""

    name: str
    value: float
    low: float = np.nan
    high: float = np.nan
    control: bool = False
    n: int | None = None


@dataclass(frozen=True)
class Line:
    """A curve, with a band from `low` to `high` where they are given; `level` is a horizontal line of the same kind."""

    name: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    level: float = np.nan
    marks: bool = False


def strokes(names: Sequence[str], controls: Sequence[str] | set[str] = ()) -> dict[str, Stroke]:
    """Give every name a colour, then dashes; controls are grey, the mean ``all`` is black."""
    found = {}
    real = [name for name in names if name not in controls]
    for i, name in enumerate(real):
        found[name] = Stroke(f"c{i % 8}", _DASHES[(i // 8) % 4]) if name != "all" else Stroke("ink")
    for i, name in enumerate(name for name in names if name in controls):
        found[name] = Stroke("control", _DASHES[i % 4])
    return found


def forest(dots: Sequence[Dot], *, alt: str, prior: float = np.nan) -> Markup:
    """Draw a dot with its interval for every name, and the prior as a dashed line through all of them."""
    with _drawing():
        figure, axes = _canvas([dot.name for dot in dots], rows=len(dots), right=34)
        for y, dot in enumerate(dots):
            colour = _HEX["control" if dot.control else "accent"]
            if np.isfinite(dot.low + dot.high):
                axes.plot([dot.low, dot.high], [y, y], color=colour, lw=2, solid_capstyle="butt", clip_on=False)
            if np.isfinite(dot.value):
                known = bool(np.isfinite(dot.low))
                face = colour if known else "none"
                axes.plot(dot.value, y, "o", ms=6, mfc=face, mec=colour, mew=1.5, clip_on=False)
            if dot.n is not None:
                axes.annotate(
                    f"{dot.n}", (1, y), xycoords=("axes fraction", "data"), xytext=(30, 0),
                    textcoords="offset points", ha="right", va="center", fontsize=10, color=_HEX["soft"],
                )  # fmt: skip
        if np.isfinite(prior):
            axes.axvline(prior, color=_HEX["ink"], lw=1.2, dashes=(4, 3), zorder=0)
        axes.set_xlim(0, 1)
        return _svg(figure, alt)


def boxes(values: Mapping[str, ArrayLike], *, alt: str, controls: set[str]) -> Markup:
    """Draw a box for every name: quartiles and median, whiskers from the 5th to the 95th percentile, the mean a dot."""
    from matplotlib.cbook import boxplot_stats

    with _drawing():
        figure, axes = _canvas(list(values), rows=len(values), right=12)
        for y, (name, numbers) in enumerate(values.items()):
            known = np.asarray(numbers, dtype=np.float64)
            known = known[np.isfinite(known)]
            if not known.size:
                continue
            colour = _HEX["control" if name in controls else "accent"]
            line = {"color": colour, "lw": 1.4}
            axes.bxp(
                boxplot_stats(known, whis=(5, 95)), positions=[y], orientation="horizontal", widths=0.55,
                showfliers=False, showmeans=True, manage_ticks=False, boxprops=line, whiskerprops=line, capprops=line,
                medianprops={"color": colour, "lw": 2.6},
                meanprops={"marker": "o", "mfc": colour, "mec": colour, "ms": 3.5},
            )  # fmt: skip
        axes.set_xlim(0, 1)
        return _svg(figure, alt)


def curves(
    lines: Sequence[Line],
    look: Mapping[str, Stroke],
    *,
    alt: str,
    labels: tuple[str, str],
    ylim: tuple[float, float] | None = None,
    stages: Sequence[str] = (),
    diagonal: bool = False,
    size: tuple[int, int] = (WIDTH, 250),
) -> Markup:
    """Draw lines with their bands over [0, 1], or over named stages.

    Parameters
    ----------
    lines, look
        The curves, and the stroke of each by its name.
    alt, labels
        What the figure shows, in words, and what its x and y axis do.
    ylim, size
        Ends of the y axis, and pixels ``(width, height)`` of the figure.
    stages
        Names of the places on the x axis.
    diagonal
        Draw the line from (0, 0) to (1, 1).
    """
    with _drawing():
        names = [shortened(stage, 16) for stage in stages]
        bottom = 44 + (round(0.62 * _LETTER * max(map(len, names), default=0)) if names else 0)
        figure, axes = _axes(size, (52, bottom, 12, 10))
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_HEX["soft"], lw=1, dashes=(4, 3))
        for line in lines:
            _draw_line(axes, line, look[line.name])
        if names:
            axes.set_xticks(range(len(names)), names, rotation=38, ha="right", rotation_mode="anchor")
            axes.set_xlim(-0.3, len(names) - 0.7)
        else:
            axes.set_xlim(0, 1)
        if ylim is not None:
            axes.set_ylim(*ylim)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.grid(visible=True, lw=0.6)
        axes.set_axisbelow(True)
        return _svg(figure, alt)


def shortened(label: str, longest: int = _LONGEST_LABEL) -> str:
    """Cut a label in its middle, so that both ends are seen."""
    label = " ".join(label.split())
    if len(label) <= longest:
        return label
    tail = (longest - 1) // 2
    return f"{label[: longest - 1 - tail]}…{label[-tail:]}"


# ---------------------------------------------------------------------------------------------------------------------


def _draw_line(axes: Axes, line: Line, stroke: Stroke) -> None:
    colour = _HEX[stroke.colour]
    dashes = tuple(float(part) for part in stroke.dashes.split())
    style: dict[str, Any] = {"dashes": dashes} if dashes else {}
    x, y = np.asarray(line.x, dtype=np.float64), np.asarray(line.y, dtype=np.float64)
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, dtype=np.float64), np.asarray(line.high, dtype=np.float64)
        if np.isfinite(low + high).any():
            axes.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
    if line.marks or len(x) == 1:
        style |= {"marker": "o", "ms": 4.5}
    axes.plot(x, y, color=colour, lw=1.8, **style)
    if np.isfinite(line.level):
        axes.axhline(line.level, color=colour, lw=1.1, dashes=(2, 3))


def _canvas(names: Sequence[str], *, rows: int, right: int) -> tuple[Figure, Axes]:
    """Return axes for one row a name, with room for the names on the left."""
    shown = [shortened(name) for name in names]
    left = round(18 + _LETTER * max(map(len, shown), default=0))
    figure, axes = _axes((WIDTH, 20 * rows + 34), (left, 24, right, 6))
    axes.set_yticks(range(rows), shown)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=True, axis="x", lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _axes(size: tuple[int, int], margins: tuple[int, int, int, int]) -> tuple[Figure, Axes]:
    """Return a figure of `size` pixels whose axes keep (left, bottom, right, top) clear."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    (width, height), (left, bottom, right, top) = size, margins
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    place = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure, figure.add_axes(place)


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw with the report's settings, and let a name hold letters that matplotlib's own font has not."""
    from matplotlib import rc_context

    with plain_style(), rc_context(_RC), warnings.catch_warnings():
        # the reader's font draws the text, matplotlib's only measures it
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _svg(figure: Figure, alt: str) -> Markup:
    """Return the figure as an SVG element that can stand in a page beside others."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    view = re.search(r'viewBox="([^"]+)"', text)
    body = re.search(r"<svg[^>]*>(.*)</svg>", text, flags=re.DOTALL)
    if view is None or body is None:  # pragma: no cover  a matplotlib that writes another SVG
        raise ValueError("matplotlib's SVG has no viewBox")
    drawn = re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->|<g>\s*</g>|<g/>", "", body[1], flags=re.DOTALL)
    drawn = _own_ids(drawn.replace("xlink:href=", "href="), alt)
    drawn = re.sub(r"<[^>]+>", _tidied, drawn)  # tags only: what a finding is called is left alone
    drawn = re.sub(r">\s+<", "><", drawn)
    width = view[1].split()[2]
    label = Markup.escape(alt)
    head = f'<svg viewBox="{view[1]}" style="max-width: {float(width):g}px" role="img" aria-label="{label}">'
    return Markup(f"{head}{drawn.strip()}</svg>")  # noqa: S704  matplotlib has escaped the names inside


def _own_ids(drawn: str, alt: str) -> str:
    """Keep the ids that something refers to, and make them this figure's own."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', drawn))
    mark = hashlib.sha256((alt + drawn).encode()).hexdigest()[:8]

    def own(match: re.Match[str]) -> str:
        tag = re.sub(r'\sid="([^"]+)"', lambda at: f' id="{at[1]}-{mark}"' if at[1] in used else "", match[0])
        return re.sub(r'(url\(#|href="#)([^)"]+)', rf"\1\2-{mark}", tag)

    return re.sub(r"<[^>]+>", own, drawn)


def _tidied(match: re.Match[str]) -> str:
    """Put the page's colours and font into a tag, and round its places to a hundredth of a pixel."""
    tag = re.sub(r"#0100([0-9a-f]{2})", lambda at: f"var(--{VARIABLES[int(at[1], 16)]})", match[0])
    tag = re.sub(r"font-family:[^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
    return re.sub(r'\b(?:d|x|y|transform)="[^"]*"', _rounded, tag)


def _rounded(match: re.Match[str]) -> str:
    short = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), match[0])
    return re.sub(r"\s+", " ", short)

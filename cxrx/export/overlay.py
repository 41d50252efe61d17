"""Draw a map over its film: one convention for the report, for exported pictures and for notebooks.

A map is shown in its published form, its positive part as a share of its own height (its 99.5th percentile, since the
highest single pixel of a gradient would leave the others dark): one colour scale from 0 to 1 for every map of a row,
whatever units the methods have. The colours (inferno) are perceptually uniform and become opaque
with the value, so that the film stays visible where a method says nothing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrx.files.figures import plain_style
from cxrx.metrics.geometry import resize
from cxrx.metrics.localisation import maximum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "inferno"
OPACITY = 0.75
TRUTH_COLOUR = "#19d3ff"
HEIGHT = 0.995

Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the picture drawn
Grey = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One film and finding with the maps of several methods.

    Attributes
    ----------
    film
        ``(h, w)`` in [0, 1], a thumbnail.
    panels
        Method to its map ``(h, w)`` on the thumbnail's pixels.
    boxes
        Truth, in the thumbnail's pixels.
    outline
        Truth as a mask ``(h, w)`` in [0, 1], drawn as its contour in place of the boxes; None where there is none.
    facts
        What is known of the pair: the model's score, the label.
    """

    title: str
    film: Grey
    panels: Mapping[str, Grey]
    boxes: Sequence[Box] = field(default_factory=tuple)
    outline: Grey | None = None
    facts: Sequence[str] = ()


def thumbnail_shape(rows: int, columns: int, longest: int) -> tuple[int, int]:
    """Return the size of a picture whose longer side is at most `longest`; it is never enlarged."""
    zoom = min(1.0, longest / max(rows, columns))
    return max(1, round(rows * zoom)), max(1, round(columns * zoom))


def scaled_boxes(boxes: ArrayLike, size: tuple[int, int], shape: tuple[int, int]) -> list[Box]:
    """Carry boxes ``(n, 4)`` from a picture of `size` (rows, columns) to its thumbnail of `shape`."""
    zoom = np.array([shape[1] / size[1], shape[0] / size[0]] * 2)
    return [(x, y, w, h) for x, y, w, h in (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * zoom).tolist()]


def relative(values: ArrayLike) -> Grey:
    """Return the positive part as a share of the map's height, ``[0, 1]``; all 0 where nothing is positive or finite.

    The height is the 99.5th percentile of the pixels, but at least a tenth of the maximum.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all() or array.max() <= 0:
        return np.zeros(array.shape)
    height = max(float(np.quantile(array, HEIGHT)), array.max() / 10)
    share: Grey = np.clip(array / height, 0, 1)
    return share


def peak(values: ArrayLike) -> tuple[int, int] | None:
    """Return ``(row, column)`` of the maximum, as the pointing game takes it; None for a map that names no place."""
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all() or array.max() <= array.min():
        return None
    return maximum(array)


def blend(film: ArrayLike, values: ArrayLike | None) -> NDArray[np.uint8]:
    """Lay a map over a film.

    Parameters
    ----------
    film
        ``(h, w)`` in [0, 1].
    values
        ``(h', w')`` map of the same view (resized where the sizes differ), or None for the film alone.

    Returns
    -------
    rgb
        ``(h, w, 3)`` uint8.
    """
    grey = np.clip(np.asarray(film, dtype=np.float64), 0, 1)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    if values is not None:
        from matplotlib import colormaps

        share = relative(resize(values, grey.shape))
        opacity = (OPACITY * share**0.7)[:, :, None]
        rgb = (1 - opacity) * rgb + opacity * colormaps[COLOURS](share)[:, :, :3]
    return np.round(rgb * 255).astype(np.uint8)


def jpeg(rgb: NDArray[np.uint8], quality: int = 82) -> bytes:
    """Encode ``(h, w, 3)`` (or grey ``(h, w)``) uint8 as JPEG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


@plain_style()
def draw_cases(cases: Sequence[Case], *, panel_inches: float = 2.4) -> Figure:
    """Draw a grid: a row a case; the film with its truth, then a panel a method, and one colour scale.

    The figure has its own Agg canvas; nothing global is touched. Save it with ``figure.savefig(path)``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    columns = 1 + max((len(case.panels) for case in cases), default=0)
    figure = Figure(figsize=(columns * panel_inches + 0.7, len(cases) * (panel_inches + 0.35)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(cases), columns, squeeze=False)
    for case, row in zip(cases, axes, strict=True):
        _draw_panel(row[0], case, None, case.title, ", ".join(case.facts))
        for axis, (method, values) in zip(row[1:], case.panels.items(), strict=False):
            _draw_panel(axis, case, values, method)
        for axis in row[1 + len(case.panels) :]:
            axis.set_axis_off()
    scale = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=axes, fraction=0.03, pad=0.01, aspect=30)
    scale.set_label("share of the map's height", fontsize=8)
    scale.ax.tick_params(labelsize=7)
    return figure


def _draw_panel(axis: Any, case: Case, values: Grey | None, title: str, caption: str = "") -> None:
    from matplotlib.patches import Rectangle

    axis.imshow(blend(case.film, values), interpolation="nearest")
    for colour, line in (("black", 2.6), (TRUTH_COLOUR, 1.4)):
        if case.outline is not None:
            axis.contour(case.outline, levels=[0.5], colors=colour, linewidths=line)
            continue
        for x, y, width, height in case.boxes:
            axis.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=colour, linewidth=line))
    point = None if values is None else peak(values)
    if point is not None:
        for colour, line in (("black", 3.0), ("white", 1.4)):
            axis.plot(point[1], point[0], "+", color=colour, markersize=9, markeredgewidth=line)
    axis.set_title(title, fontsize=8)
    axis.set_xlabel(caption, fontsize=7)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


@plain_style()
def png(figure: Figure, dpi: int = 110) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()

"""What is on the film but not in the patient: laterality letters, shutters, and the planted shortcut."""

from __future__ import annotations

import numpy as np

from cxrx.phantom.anatomy import Array
from cxrx.phantom.findings import bounding_box
from cxrx.phantom.scene import Grid
from cxrx.phantom.strokes import Strokes
from cxrx.specs import Box

# pen strokes in a unit box, (x, y) pairs from the upper left corner
LETTERS: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "L": (((0.1, 0), (0.1, 1), (0.8, 1)),),
    "R": (((0.1, 1), (0.1, 0), (0.6, 0), (0.8, 0.12), (0.8, 0.4), (0.6, 0.52), (0.1, 0.52)), ((0.45, 0.52), (0.85, 1))),
    "A": (((0, 1), (0.4, 0), (0.8, 1)), ((0.15, 0.65), (0.65, 0.65))),
    "P": (((0.1, 1), (0.1, 0), (0.6, 0), (0.8, 0.13), (0.8, 0.42), (0.6, 0.55), (0.1, 0.55)),),
}


def stamp(pixels: Array, grid: Grid, rng: np.random.Generator) -> None:
    """Add the laterality marker, the view on some films, and the collimator's shutters, in place."""
    rows, columns = grid.shape
    strokes = _film_strokes(grid)
    height = rng.uniform(10, 17)
    marked_right = rng.random() < 0.35
    x = rng.uniform(0.04, 0.12) if marked_right else rng.uniform(0.86, 0.93)
    x_mm, y_mm = x * columns * grid.spacing, rng.uniform(0.03, 0.16) * rows * grid.spacing
    _write(strokes, "R" if marked_right else "L", x_mm, y_mm, height, height * 0.13)
    if grid.pose.view == "AP" and rng.random() < 0.6:
        _write(strokes, "AP", x_mm - 2, y_mm + 1.4 * height, 0.5 * height, 0.07 * height)
    lead = np.clip(strokes.render(), 0, 1)
    np.copyto(pixels, np.maximum(pixels, 0.97 * lead))
    if rng.random() < 0.25:
        top, bottom, left, right = (int(share * rows) for share in rng.uniform(0, 0.022, 4))
        pixels[:top], pixels[rows - bottom :] = 0.0, 0.0
        pixels[:, :left], pixels[:, columns - right :] = 0.0, 0.0


def plant_shortcut(
    pixels: Array, grid: Grid, finding: str | None, present: bool, strength: float, rng: np.random.Generator
) -> Box | None:
    """Add a lead token in the lower left corner of the film with a probability that depends on the label, in place.

    Parameters
    ----------
    pixels, grid
        ``(rows, columns)`` in [0, 1], and where they lie.
    finding, present
        What the token goes along with (None: nothing, and there is no token), and whether the film has it.
    strength
        Probability of a token on a film with the finding; one minus that without.
    rng
        What the token and its position are drawn from.
    """
    if finding is None or rng.random() >= (strength if present else 1 - strength):
        return None
    rows, columns = grid.shape
    radius = 6.5 / grid.spacing
    y0, x0 = rows * rng.uniform(0.93, 0.95), columns * rng.uniform(0.06, 0.09)
    y, x = np.ogrid[:rows, :columns]
    distance = np.hypot(y - y0, x - x0)
    pixels[distance <= radius] = 1.0
    pixels[distance <= 0.45 * radius] = 0.15
    return bounding_box(finding, distance <= radius)


def _film_strokes(grid: Grid) -> Strokes:
    """Return strokes whose coordinates are mm on the film, from its upper left corner."""
    return Strokes(lambda x, y: (y / grid.spacing, x / grid.spacing), grid.shape, grid.spacing)


def _write(strokes: Strokes, text: str, x: float, y: float, height: float, width: float) -> None:
    """Write letters of `height` mm with a pen of `width` mm."""
    for letter in text:
        for line in LETTERS[letter]:
            px, py = (np.array(axis, np.float64) for axis in zip(*line, strict=True))
            along = np.concatenate([[0], np.cumsum(np.hypot(np.diff(px), np.diff(py)))])
            t = np.linspace(0, along[-1], 120)
            u, v = x + 0.8 * height * np.interp(t, along, px), y + height * np.interp(t, along, py)
            strokes.band(u, v, width, 2.5)
        x += 0.9 * height

"""The film plane: where each pixel lies in the patient, and how much lung the beam crosses there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import zoom

from cxrx.phantom.anatomy import LEFT, SIDES, Array, Pose, Side, Thorax
from cxrx.phantom.strokes import Strokes

FIELD_HEIGHT = 372.0  # mm of the patient along the film's columns


@dataclass(frozen=True, slots=True)
class Grid:
    """Patient coordinates of every pixel: `u` and `v`, ``(rows, columns)`` in mm; `spacing` in mm per pixel."""

    u: Array
    v: Array
    spacing: float
    pose: Pose
    centre: float  # v in the middle of an unshifted film

    @property
    def shape(self) -> tuple[int, int]:
        """Return rows and columns."""
        rows, columns = self.u.shape
        return rows, columns

    def to_pixel(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Map patient coordinates to fractional (row, column): the inverse of what `u` and `v` hold."""
        pose, (rows, columns) = self.pose, self.shape
        c, s = np.float32(np.cos(pose.tilt)), np.float32(np.sin(pose.tilt))
        a, b = (u - pose.shift[0]) * pose.scale, (v - self.centre - pose.shift[1]) * pose.scale
        return (s * a + c * b) / self.spacing + (rows - 1) / 2, (c * a - s * b) / self.spacing + (columns - 1) / 2

    def strokes(self) -> Strokes:
        """Return an empty collection of curves on this grid."""
        return Strokes(self.to_pixel, self.shape, self.spacing)


def make_grid(size: tuple[int, int], thorax: Thorax) -> Grid:
    """Lay a film of `size` pixels over a patient."""
    pose = thorax.pose
    rows, columns = size
    spacing = FIELD_HEIGHT / rows
    y = ((np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * spacing)[:, None]
    x = ((np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * spacing)[None]
    c, s = np.float32(np.cos(pose.tilt)), np.float32(np.sin(pose.tilt))
    centre = 0.46 * thorax.base + 4
    u = (c * x + s * y) / pose.scale + pose.shift[0]
    v = (c * y - s * x) / pose.scale + centre + pose.shift[1]
    return Grid(u.astype(np.float32), v.astype(np.float32), spacing, pose, centre)


@dataclass(frozen=True, slots=True)
class Lung:
    """One lung in projection, arrays ``(rows, columns)``.

    Attributes
    ----------
    w
        Distance from the midline, mm.
    inner, outer
        `w` of the lung's edges at each pixel's height.
    floor
        `v` of the diaphragm at each pixel.
    cavity
        Path through the hemithorax above the diaphragm, mm.
    path
        What of it is lung, not mediastinum or heart.
    """

    side: Side
    w: Array
    inner: Array
    outer: Array
    floor: Array
    cavity: Array
    path: Array


def make_lungs(grid: Grid, thorax: Thorax) -> tuple[Lung, Lung]:
    """Return the patient's right and left lung."""
    solid = mediastinum(grid, thorax)
    return (_lung(grid, thorax, SIDES[0], solid), _lung(grid, thorax, SIDES[1], solid))


def _lung(grid: Grid, thorax: Thorax, side: Side, solid: Array) -> Lung:
    v, w = grid.v, side * grid.u
    inner, outer = thorax.medial(v), thorax.lateral(v)
    floor = thorax.diaphragm(w, side).astype(np.float32)
    across = 2 * (w - inner) / np.maximum(outer - inner, 1) - 1
    profile = np.sqrt(np.clip(1 - np.abs(across) ** 3, 0, 1))
    rise = 1 - np.clip(v / (0.5 * thorax.base), 0, 1)
    depth = 0.78 * thorax.patient.depth * np.sqrt(1 - rise * rise)
    # most of the lung ends at the dome; the posterior recess reaches deeper and thins out
    soft = max(1.5, grid.spacing)
    above = np.clip(0.5 + (floor - v) / (2 * soft), 0, 1)
    recess = np.clip((np.minimum(floor + 48, thorax.base + 6) - v) / 48, 0, 1)
    cavity = (depth * profile * (0.87 * above + 0.13 * recess)).astype(np.float32)
    path = np.maximum(cavity - 1.9 * solid, 0).astype(np.float32)
    return Lung(side, w, inner.astype(np.float32), outer.astype(np.float32), floor, cavity, path)


def mediastinum(grid: Grid, thorax: Thorax) -> Array:
    """Return the path through heart and mediastinum that takes the place of lung (mm)."""
    v = grid.v
    # the silhouette changes slowly along v: read it off a fine table
    table = np.linspace(v.min(), v.max(), 600, dtype=np.float32)
    right = np.interp(v, table, -thorax.mediastinal_edge(table, SIDES[0])).astype(np.float32)
    left = np.interp(v, table, thorax.mediastinal_edge(table, LEFT)).astype(np.float32)
    across = (2 * grid.u - left - right) / (left - right)
    upper = 125 * np.sqrt(np.clip(1 - across**2, 0, 1))
    heart = 1.5 * thorax.heart()[3] * np.sqrt(np.clip(1 - thorax.heart_radius(grid.u, v), 0, 1))
    return np.asarray(np.maximum(upper, heart), np.float32)


def cloud(rng: np.random.Generator, shape: tuple[int, int], slope: float) -> Array:
    """Return a random field of zero mean and unit deviation whose amplitude falls as frequency to the `slope`.

    It is drawn on a fixed grid and interpolated, so that one seed gives one pattern at every resolution.
    """
    base = (128, 112)
    spectrum = np.fft.rfft2(rng.standard_normal(base))
    fy, fx = np.fft.fftfreq(base[0])[:, None], np.fft.rfftfreq(base[1])[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(spectrum * np.maximum(frequency, 0.015) ** -slope * (frequency < np.inf), base)
    field /= field.std()
    return np.asarray(zoom(field, (shape[0] / base[0], shape[1] / base[1]), order=1), np.float32)

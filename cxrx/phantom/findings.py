"""Planted findings: what each adds to the path of the beam, which vessels it hides, and where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from cxrx.phantom import FINDINGS
from cxrx.phantom.anatomy import LEFT, RIGHT, Array, Side, Thorax
from cxrx.phantom.scene import Grid, Lung, cloud
from cxrx.specs import Box

Mask = NDArray[np.bool_]
GAS = 0.72  # share of the lung's path that is air


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion on the film plane, arrays ``(rows, columns)``.

    Attributes
    ----------
    path
        Added to the beam's path, mm; negative where tissue gives way to air.
    hides
        Share of the lung's vessels that can no longer be seen, 0 to 1.
    mask
        The pixels a reader would outline.
    """

    finding: str
    path: Array
    hides: Array
    mask: Mask


def draw_findings(rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a film's findings: none in a third of the films, else mostly one, sometimes two or three."""
    if rng.random() < 1 / 3:
        return ()
    count = int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1]))
    chosen = set(rng.choice(len(FINDINGS), count, replace=False).tolist())
    return tuple(name for k, name in enumerate(FINDINGS) if k in chosen)


def plant(finding: str, grid: Grid, thorax: Thorax, lungs: tuple[Lung, Lung], rng: np.random.Generator) -> list[Lesion]:
    """Return the lesions of one finding; at least one.

    Parameters
    ----------
    finding
        One of :data:`FINDINGS`.
    grid, thorax, lungs
        The pixels, the patient, and the right and left lung.
    rng
        What size and position are drawn from.
    """
    if finding == "Consolidation":
        return [_consolidation(grid, thorax, lungs, rng) for _ in range(1 + int(rng.random() < 0.25))]
    if finding == "Nodule":
        return [_nodule(grid, thorax, rng) for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])))]
    if finding == "Effusion":
        return [_effusion(grid, thorax, lung, rng) for lung in _one_or_both(lungs, rng, 0.2)]
    if finding == "Pneumothorax":
        return [_pneumothorax(grid, thorax, lung, rng) for lung in _one_or_both(lungs, rng, 0.0)]
    if finding == "Cardiomegaly":
        return [_cardiomegaly(grid, thorax)]
    raise ValueError(f"{finding!r} is no phantom finding; there are {', '.join(FINDINGS)}")


def _one_or_both(lungs: tuple[Lung, Lung], rng: np.random.Generator, both: float) -> tuple[Lung, ...]:
    """Pick a side, or both with the given probability."""
    first = int(rng.integers(2))
    return lungs if rng.random() < both else (lungs[first],)


def _place(thorax: Thorax, rng: np.random.Generator, margin: float) -> tuple[Side, float, float]:
    """Return side and ``(w, v)`` of a point in lung that nothing hides, about `margin` mm from its edges.

    Positions are drawn in the patient, not among pixels, so that they do not depend on the resolution.
    """
    for _ in range(200):
        side: Side = LEFT if rng.random() < 0.5 else RIGHT
        v = rng.uniform(18, thorax.base)
        inner, outer = float(thorax.medial(v)), float(thorax.lateral(v))
        w = rng.uniform(inner, outer)
        mediastinum = float(thorax.mediastinal_edge(v, side))
        clear = (
            outer - w > margin
            and w - mediastinum > margin + 4
            and float(thorax.diaphragm(w, side)) - v > margin
            and float(thorax.heart_radius(side * w, v)) > (1 + margin / 60) ** 2
        )
        if clear:
            return side, w, v
    raise RuntimeError("this patient's lungs leave no room for a lesion")


def _consolidation(grid: Grid, thorax: Thorax, lungs: tuple[Lung, Lung], rng: np.random.Generator) -> Lesion:
    """Patchy air-space opacity: several soft blobs, mottled, sometimes cut off by a fissure."""
    side, w0, v0 = _place(thorax, rng, 8)
    lung = lungs[0 if side == RIGHT else 1]
    radius = rng.uniform(17, 36)
    field = np.zeros(grid.shape, np.float32)
    for _ in range(int(rng.integers(4, 8))):
        dw, dv = rng.normal(0, 0.45 * radius, 2)
        r, stretch = radius * rng.uniform(0.4, 0.8), rng.uniform(0.75, 1.3)
        d2 = ((lung.w - w0 - dw) * stretch / r) ** 2 + ((grid.v - v0 - dv) / stretch / r) ** 2
        field = np.maximum(field, rng.uniform(0.6, 1.0) * np.exp(-(d2**1.3)))
    if rng.random() < 0.35:
        v_cut, slope = v0 + rng.uniform(-0.2, 0.5) * radius, rng.normal(0, 0.25)
        field *= np.clip(0.5 + (v_cut + slope * (lung.w - w0) - grid.v) / 4, 0, 1)
    mottle = 1 + 0.28 * cloud(rng, grid.shape, 1.0)
    lobe = np.clip(lung.path / 60, 0, 1)
    amount = rng.uniform(42, 80)
    share = field * lobe
    return Lesion("Consolidation", amount * share * mottle, 0.85 * share, _largest(share > 0.33))


def _nodule(grid: Grid, thorax: Thorax, rng: np.random.Generator) -> Lesion:
    """Place a round soft-tissue lesion, slightly lobulated."""
    radius = rng.uniform(9.5, 16.0)
    side, w0, v0 = _place(thorax, rng, 4 + 0.5 * radius)
    dw, dv = side * grid.u - w0, grid.v - v0
    angle = np.arctan2(dv, dw)
    wave = sum(rng.normal(0, 0.05) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    r2 = (dw**2 + dv**2) / (radius * (1 + wave)) ** 2
    sphere = np.sqrt(np.clip(1 - r2, 0, 1))
    density = rng.uniform(1.5, 2.0)
    return Lesion("Nodule", (2 * radius * density * sphere).astype(np.float32), 0.5 * sphere, r2 < 1)


def _effusion(grid: Grid, thorax: Thorax, lung: Lung, rng: np.random.Generator) -> Lesion:
    """Fluid that blunts the costophrenic angle and climbs the chest wall as a meniscus; supine, it also layers."""
    height = rng.uniform(26, 42) if rng.random() < 0.5 else rng.uniform(42, 90)
    climb = rng.uniform(2.0, 4.0)
    x = np.clip((lung.w - lung.inner) / np.maximum(lung.outer - lung.inner, 1), 0, 1)
    dome = thorax.patient.dome[0 if lung.side == RIGHT else 1]
    surface = thorax.base - (height - 0.35 * dome) * 0.5 - (0.5 * height + 0.35 * dome) * x**climb
    fill = np.clip((grid.v - surface) / (0.45 * height), 0, 1) ** 0.8
    share = rng.uniform(0.75, 1.0) * fill
    if grid.pose.view == "AP" and rng.random() < 0.5:
        veil = np.clip(grid.v / thorax.base, 0, 1) ** 1.5 * rng.uniform(0.1, 0.28)
        share = np.maximum(share, veil)
    path = GAS * share * lung.path
    mask = (share > 0.3) & (lung.path > 10) & (grid.v < thorax.base + 4)
    return Lesion("Effusion", path.astype(np.float32), fill.astype(np.float32), _largest(mask))


def _pneumothorax(grid: Grid, thorax: Thorax, lung: Lung, rng: np.random.Generator) -> Lesion:
    """Air between lung and chest wall: a thin pleural line, and beyond it no vessels and less attenuation."""
    width = rng.uniform(10, 20) if rng.random() < 0.5 else rng.uniform(20, 40)
    reach = rng.uniform(0.45, 1.05) * thorax.base  # how far down the wall it goes
    taper = np.clip(1 - grid.v / reach, 0, 1) ** 0.6
    drop = rng.uniform(0.8, 1.4) * width
    # the collapsed lung: the same outline, lowered at the apex and pulled in at the side
    inside = thorax.lateral(grid.v - drop * taper) - width * taper - lung.w
    slope = np.hypot(*np.gradient(inside, grid.spacing)) + 1e-3
    distance = inside / np.clip(slope, 0.5, 8)  # mm, positive in the collapsed lung
    soft = max(0.8, 0.6 * grid.spacing)
    chest = np.clip(lung.path / 12, 0, 1)
    outside = np.clip(0.5 - distance / (2 * soft), 0, 1) * chest * (taper > 0.02)
    line = np.exp(-((distance / soft) ** 2)) * chest * (taper > 0.02) * rng.uniform(3.5, 7.0) * 0.8 / soft
    # air takes the place of the rest of the lung, except what lies before and behind
    path = line - rng.uniform(0.35, 0.7) * (1 - GAS) * lung.path * outside
    return Lesion("Pneumothorax", path.astype(np.float32), outside.astype(np.float32), _largest(outside > 0.5))


def _cardiomegaly(grid: Grid, thorax: Thorax) -> Lesion:
    """Outline the enlarged heart; the heart itself is part of the thorax, so nothing is added."""
    floor = np.maximum(thorax.diaphragm(-grid.u, RIGHT), thorax.diaphragm(grid.u, LEFT)) + 12
    mask = (thorax.heart_radius(grid.u, grid.v) < 1) & (grid.v < floor)
    nothing = np.zeros(grid.shape, np.float32)
    return Lesion("Cardiomegaly", nothing, nothing, mask)


def bounding_box(finding: str, mask: Mask) -> Box:
    """Return the tight rectangle about a mask; `x`, `y` are the upper left pixel, sizes count pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        raise ValueError(f"the mask of {finding} is empty")
    x, y = int(columns[0]), int(rows[0])
    return Box(finding, float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y))


def _largest(mask: Mask) -> Mask:
    """Keep the largest connected piece, so that a stray pixel does not stretch the box."""
    pieces, count = label(mask, np.ones((3, 3)))
    if count < 2:
        return mask
    return np.asarray(pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])))

"""What lies in every chest besides lung and heart: bones, airways, vessels, and what is stuck to the skin."""

from __future__ import annotations

import numpy as np

from cxrx.phantom.anatomy import LEFT, RIGHT, SIDES, Array, Side, Thorax
from cxrx.phantom.strokes import SIGMAS, Strokes

FINE, MEDIUM, COARSE = SIGMAS
BONE = 1.9  # attenuation of bone relative to water, at chest energies


def add_ribs(strokes: Strokes, thorax: Thorax) -> None:
    """Add ten pairs of ribs: the back part slopes outwards, turns at the chest wall, the front part slopes inwards."""
    p = thorax.patient
    k = np.arange(1, 11, dtype=np.float32)[:, None]
    t = np.linspace(0, 1, 150, dtype=np.float32)[None]
    start = -22 + p.rib_spacing * thorax.pose.inspiration * k  # (10, 1) height at the spine
    drop = 14 + 6.5 * k
    end = thorax.lateral(start + drop) + 2
    path = BONE * p.bone * 5.5
    for side in SIDES:
        w = 20 + (end - 20) * np.sin(0.5 * np.pi * t)
        v = start - 7 * np.sin(np.pi * t) + drop * t**2
        u = side * w + thorax.spine(v) * (1 - t)
        strokes.band(u, v, p.rib_width, path, edge=0.4 * path)
        inner = np.where(k < 7, 44 + 3 * k, 30 + 7 * k)  # where bone turns into cartilage
        w = inner + np.maximum(end - inner, 10) * np.cos(0.5 * np.pi * t)
        v = start + drop + (30 + 4 * k) * np.sin(0.5 * np.pi * t) ** 1.3
        fade = np.clip((1 - t) / 0.25, 0, 1) * (k < 9)
        strokes.band(side * w, v, 1.15 * p.rib_width, 0.75 * path * fade, edge=0.25 * path)


def add_spine(strokes: Strokes, thorax: Thorax) -> None:
    """Add a column of vertebral bodies with their end plates, pedicles and spinous processes."""
    p = thorax.patient
    v = np.linspace(-160, 400, 500, dtype=np.float32)
    path = BONE * p.bone * 4.5
    strokes.band(thorax.spine(v), v, 30, path)
    for edge in (-16, 16):
        strokes.curve(thorax.spine(v) + edge, v, 0.35 * path, FINE)
    plates = np.arange(-155, 395, 0.95 * p.rib_spacing, dtype=np.float32)[:, None]
    across = np.linspace(-15, 15, 30, dtype=np.float32)[None]
    for gap in (-2, 2):
        strokes.curve(thorax.spine(plates) + across, plates + gap + 0 * across, 0.75 * path, FINE)
    for offset in (-9, 9):
        around = np.linspace(0, 2 * np.pi, 24, dtype=np.float32)[None]
        middle = plates + 0.4 * p.rib_spacing
        strokes.curve(
            thorax.spine(plates) + offset + 2.5 * np.cos(around), middle + 4 * np.sin(around), 0.5 * path, FINE
        )
    spikes = np.linspace(0, 9, 12, dtype=np.float32)[None]
    strokes.curve(thorax.spine(plates) + 0 * spikes, plates + 0.6 * p.rib_spacing + spikes, 0.6 * path, MEDIUM)


def add_shoulders(strokes: Strokes, thorax: Thorax) -> None:
    """Add clavicles, scapulae and the upper ends of the humeri."""
    p, pose = thorax.patient, thorax.pose
    t = np.linspace(0, 1, 220, dtype=np.float32)
    for side in SIDES:
        medial = 15 + 9 * side * pose.yaw
        v = 26 + pose.clavicle - 34 * t - 6 * np.sin(2 * np.pi * t)
        path = BONE * p.bone * 7
        strokes.band(side * (medial + (p.half_width + 32 - medial) * t), v, 12 - 4 * np.sin(np.pi * t), path, edge=4.0)
        # the blades lie over the lungs unless the shoulders are rolled forward, as they are for a PA film
        overlap = -16 if pose.view == "AP" else 8
        border = p.half_width + overlap - 6 * np.sin(np.pi * t)
        v = 22 + 130 * t
        strokes.curve(side * border, v, 2.2 * p.bone, FINE)
        strokes.band(side * (border + 13), v, 26, 3.0 * p.bone * np.clip((1 - t) / 0.2, 0, 1))
        strokes.band(side * (border + 2 + 45 * t), 34 - 42 * t, 7, 5.0 * p.bone)
        strokes.band(side * (p.half_width + 48 + 10 * t), 14 + 190 * t, 24, 9.0 * p.bone, edge=4.0)


def add_airways(strokes: Strokes, thorax: Thorax) -> None:
    """Add trachea and main bronchi: air, so that the path is negative."""
    carina = 0.36 * thorax.base
    v = np.linspace(-160, carina, 200, dtype=np.float32)
    drift = np.clip(v / carina, 0, 1) * (-4 + 5 * thorax.pose.yaw)
    strokes.band(drift + 2 * thorax.pose.yaw, v, 16, -13.0)
    t = np.linspace(0, 1, 60, dtype=np.float32)
    strokes.band(drift[-1] - 26 * t, carina + 28 * t, 12, -10.0 * (1 - 0.6 * t))
    strokes.band(drift[-1] + 36 * t, carina + 26 * t, 10, -9.0 * (1 - 0.6 * t))


def add_vessels(strokes: Strokes, thorax: Thorax) -> None:
    """Add pulmonary vessels branching from both hila, thinning outwards."""
    rng = np.random.default_rng([thorax.patient.tree, 7])
    for side in SIDES:
        hilum_v = (0.45 if side == RIGHT else 0.42) * thorax.base
        hilum_w = thorax.patient.mediastinum + 5 + 6 * side * thorax.pose.yaw
        angle = np.linspace(-1.45, 1.35, 8) + rng.normal(0, 0.12, 8)
        w, v = np.full(8, hilum_w - 8), hilum_v + 18 * np.sin(angle)
        length, radius = rng.uniform(26, 40, 8), rng.uniform(3.6, 5.2, 8) * thorax.patient.vessels
        _blob(strokes, side, hilum_w, hilum_v, 22 * thorax.patient.vessels)
        for generation in range(6):
            w, v, angle = _branches(strokes, side, (w, v, angle), length, radius, rng)
            turn = rng.uniform(0.18, 0.5, w.size)
            w, v = np.repeat(w, 2), np.repeat(v, 2)
            angle = np.column_stack([angle + turn, angle - turn * rng.uniform(0.4, 1, turn.size)]).ravel()
            length = np.repeat(length, 2) * rng.uniform(0.55, 0.95, w.size)
            radius = np.repeat(radius, 2) * rng.uniform(0.62, 0.80, w.size)
            if generation == 3:  # beyond this only some are visible
                keep = rng.random(w.size) < 0.6
                w, v, angle, length, radius = w[keep], v[keep], angle[keep], length[keep], radius[keep]


def _branches(
    strokes: Strokes,
    side: Side,
    start: tuple[np.ndarray, np.ndarray, np.ndarray],
    length: np.ndarray,
    radius: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one generation of vessels, slightly bent; return where they end and where they head."""
    w, v, angle = start
    t = np.linspace(0, 1, 22)[None]
    bend = rng.normal(0, 0.25, w.size)[:, None]
    heading = angle[:, None] + bend * t
    along_w = w[:, None] + length[:, None] * t * np.cos(heading)
    along_v = v[:, None] + length[:, None] * t * np.sin(heading)
    taper = radius[:, None] * (1 - 0.25 * t)
    for sigma, low, high in ((FINE, 0.0, 1.0), (MEDIUM, 1.0, 2.2), (COARSE, 2.2, 99.0)):
        pick = (radius >= low) & (radius < high)
        if pick.any():
            strokes.curve(side * along_w[pick], along_v[pick], 3.0 * taper[pick], sigma)
    return along_w[:, -1], along_v[:, -1], heading[:, -1]


def _blob(strokes: Strokes, side: Side, w: float, v: float, path: float) -> None:
    """Draw the pulmonary artery at the hilum."""
    t = np.linspace(-1, 1, 40)
    for offset in (-4, 0, 4):
        strokes.curve(side * (w + offset + 3 * t), v + 15 * t, path * 0.5, COARSE)


def add_devices(strokes: Strokes, thorax: Thorax, rng: np.random.Generator) -> None:
    """Add electrodes, wires, lines and tubes: common on portable films, rare on others. They are no finding."""
    portable = thorax.pose.view == "AP"
    around = np.linspace(0, 2 * np.pi, 60, dtype=np.float32)
    t = np.linspace(0, 1, 300, dtype=np.float32)
    if rng.random() < (0.6 if portable else 0.12):  # electrodes with their wires
        for _ in range(int(rng.integers(1, 4))):
            u, v, r = rng.uniform(-120, 120), rng.uniform(10, 230), rng.uniform(4.5, 6.5)
            strokes.curve(u + r * np.cos(around), v + r * np.sin(around), 9.0, FINE)
            strokes.curve(u + 0.3 * r * np.cos(around), v + 0.3 * r * np.sin(around), 14.0, FINE)
            end_u, end_v, bow = rng.uniform(-200, 200), rng.uniform(-90, 330), rng.normal(0, 30)
            strokes.curve(u + (end_u - u) * t, v + (end_v - v) * t + bow * np.sin(np.pi * t), 4.5, FINE)
    if rng.random() < (0.35 if portable else 0.05):  # central venous line into the superior vena cava
        entry = 1 if rng.random() < 0.5 else -1
        line = entry * (20 + 60 * (1 - t)) * (1 - t) ** 0.5 - 22 * t
        strokes.curve(line, -60 + 155 * t**1.2, 4.0, FINE)
    if rng.random() < (0.25 if portable else 0.0):  # tracheal tube
        for wall in (-3, 3):
            strokes.curve(-2 + wall + 0 * t, -100 + (100 + 0.24 * thorax.base) * t, 3.5, FINE)
    if rng.random() < 0.2:  # nipples, always a pair
        w, v, r = rng.uniform(70, 95), rng.uniform(0.66, 0.84) * thorax.base, rng.uniform(2.5, 4.0)
        for side in SIDES:
            strokes.curve(side * w + r * np.cos(around) * 0.6, v + r * 0.6 * np.sin(around), 4.0, MEDIUM)
    if rng.random() < 0.12:  # a calcified granuloma: tiny and dense
        u, v = rng.choice([LEFT, RIGHT]) * rng.uniform(50, 105), rng.uniform(40, 180)
        strokes.curve(u + 0.8 * np.cos(around), v + 0.8 * np.sin(around), 9.0, FINE)


def body(u: Array, v: Array, thorax: Thorax) -> Array:
    """Return the path through neck, shoulders and trunk, breasts included (mm)."""
    p = thorax.patient
    x = np.abs(u)
    neck = 112 * np.sqrt(np.clip(1 - (u / p.neck) ** 2, 0, 1)) * np.clip((40 - v) / 60, 0, 1)
    slope = np.clip((x - p.neck) / (p.half_width + 25 - p.neck), 0, 1)
    top = -80 + 62 * slope * slope * (3 - 2 * slope) + np.clip((x - p.half_width - 30) / 30, 0, 2) ** 2 * 25
    fall = np.clip((v - 40) / 110, 0, 1)
    edge = (p.half_width + p.wall) + 55 * (1 - fall * fall * (3 - 2 * fall))
    trunk = np.sqrt(np.clip(1 - (x / edge) ** 2.6, 0, 1)) * (1 - np.exp(-np.clip(v - top, 0, None) / 38))
    total = np.maximum(neck, p.depth * trunk)
    if p.breast:
        centre = p.breast_height * thorax.base
        down = (v - centre) / p.breast_radius
        across = (x - 0.62 * p.half_width) / p.breast_radius
        below = np.clip(1 - across**2 - (down / 0.6) ** 2, 0, 1) ** 0.7  # a crisper lower edge
        above = np.exp(-(down**2)) * np.clip(1 - across**2, 0, 1) ** 0.7  # than the upper one
        total = total + p.breast * np.where(down > 0, below, above)
    return np.asarray(total, np.float32)


def bowel_gas(u: Array, v: Array, thorax: Thorax, rng: np.random.Generator) -> Array:
    """Return the (negative) path of gas in stomach and colon below the left diaphragm (mm).

    Parameters
    ----------
    u, v
        ``(rows, columns)``, positions in the patient's plane, mm.
    thorax, rng
        The patient, and what size and position are drawn from.
    """
    path = np.zeros_like(u)
    for chance, depth in ((0.6, 70.0), (0.35, 45.0)):
        shown = rng.random() < chance
        w0, below = rng.uniform(38, 95), rng.uniform(16, 42)
        a, b = rng.uniform(14, 34), rng.uniform(9, 20)
        if shown:
            v0 = float(thorax.diaphragm(w0, LEFT)) + below + 0.5 * b
            path -= depth * np.sqrt(np.clip(1 - ((u - w0) / a) ** 2 - ((v - v0) / b) ** 2, 0, 1))
    return path

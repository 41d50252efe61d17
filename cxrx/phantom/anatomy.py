"""The patient: sizes drawn from a seed, and the outlines of the thorax as functions of position.

Lengths are millimetres in the patient's plane. ``u`` runs from the midline to the right of the picture (the patient's
left), ``v`` downwards from the apex of the lungs; ``w = side * u`` is the distance from the midline on one side, with
``side = -1`` for the patient's right lung (left of the picture) and ``+1`` for the left one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Length = Array | float  # mm, of one point or of many
Side = Literal[-1, 1]
RIGHT: Side = -1
LEFT: Side = 1
SIDES: tuple[Side, Side] = (RIGHT, LEFT)


@dataclass(frozen=True, slots=True)
class Patient:
    """What stays the same from one film of a patient to the next (mm)."""

    half_width: float  # of the thoracic cavity, at its widest
    height: float  # apex to costophrenic angle
    depth: float  # front to back, of the body
    wall: float  # chest wall beside the cavity
    dome: tuple[float, float]  # height of the right and left hemidiaphragm above the costophrenic angle
    mediastinum: float  # half-width of the upper mediastinum
    knob: float  # how far the aortic knob stands out
    heart_ratio: float  # cardiothoracic ratio without cardiomegaly
    heart_ratio_enlarged: float  # and with it
    heart_tilt: float  # radians
    heart_shift: float  # of the heart to the left, as a share of its width
    neck: float  # half-width of the neck
    rib_spacing: float
    rib_width: float
    bone: float  # bone thickness, relative
    breast: float  # thickness of the breasts; 0 for none
    breast_radius: float
    breast_height: float  # of their centre, as a share of `height`
    scoliosis: float  # amplitude of the spine's curve
    vessels: float  # vascularity, relative
    tree: int  # seed of the vessel tree


@dataclass(frozen=True, slots=True)
class Pose:
    """What changes from film to film: position, breathing, exposure."""

    view: Literal["PA", "AP"]
    tilt: float  # radians, in the plane of the film
    scale: float
    shift: tuple[float, float]  # of the picture's centre, mm
    yaw: float  # -1 to 1, patient turned to one side
    inspiration: float  # scales the height of the lungs
    clavicle: float  # height of the clavicles, mm
    scatter: float
    noise: float
    flatten: float  # strength of the dynamic range compression
    dark: float  # share of the display range where lung begins
    bright: float  # and where mediastinum ends
    gamma: float


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient's build."""
    half_width = rng.normal(126, 8)
    dome = rng.normal(42, 8)
    normal_ratio = rng.uniform(0.39, 0.49)
    return Patient(
        half_width=float(np.clip(half_width, 108, 142)),
        height=float(np.clip(rng.normal(238, 14), 205, 268)),
        depth=float(np.clip(rng.normal(218, 22), 175, 275)),
        wall=float(np.clip(rng.normal(36, 9), 20, 60)),
        dome=(float(np.clip(dome + rng.normal(4, 8), 18, 75)), float(np.clip(dome - rng.normal(5, 8), 15, 70))),
        mediastinum=float(rng.uniform(24, 34)),
        knob=float(rng.uniform(4, 14)),
        heart_ratio=float(normal_ratio),
        heart_ratio_enlarged=float(rng.uniform(0.53, 0.64)),
        heart_tilt=float(rng.uniform(0.45, 0.85)),
        heart_shift=float(rng.uniform(0.12, 0.22)),
        neck=float(rng.uniform(50, 64)),
        rib_spacing=float(rng.uniform(21.5, 25.5)),
        rib_width=float(rng.uniform(7.5, 10.5)),
        bone=float(rng.uniform(0.75, 1.25)),
        breast=float(rng.uniform(12, 42)) if rng.random() < 0.45 else 0.0,
        breast_radius=float(rng.uniform(46, 66)),
        breast_height=float(rng.uniform(0.66, 0.86)),
        scoliosis=float(rng.normal(0, 3)),
        vessels=float(rng.uniform(0.75, 1.35)),
        tree=int(rng.integers(2**31)),
    )


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw a film's position and exposure."""
    supine = bool(rng.random() < 0.35)
    return Pose(
        view="AP" if supine else "PA",
        tilt=float(rng.normal(0, 0.045 if supine else 0.025)),
        scale=float(np.clip(rng.normal(1.0 if supine else 0.97, 0.045), 0.87, 1.06)),
        shift=(float(np.clip(rng.normal(0, 7), -12, 12)), float(np.clip(rng.normal(0, 9), -16, 16))),
        yaw=float(np.clip(rng.normal(0, 0.6 if supine else 0.35), -1, 1)),
        inspiration=float(rng.uniform(0.80, 0.98) if supine else rng.uniform(0.9, 1.08)),
        clavicle=float(rng.normal(-10 if supine else 4, 8)),
        scatter=float(rng.uniform(0.5, 1.1) if supine else rng.uniform(0.2, 0.7)),
        noise=float(rng.uniform(0.010, 0.026)),
        flatten=float(rng.uniform(0.15, 0.45)),
        dark=float(rng.uniform(0.06, 0.26)),
        bright=float(rng.uniform(0.80, 0.97)),
        gamma=float(rng.uniform(0.8, 1.25)),
    )


@dataclass(frozen=True, slots=True)
class Thorax:
    """Outlines of one patient in one pose; methods take one point or many, in mm, and return arrays."""

    patient: Patient
    pose: Pose
    enlarged: bool  # cardiomegaly

    @property
    def base(self) -> float:
        """Return `v` of the costophrenic angles."""
        return self.patient.height * self.pose.inspiration

    def lateral(self, v: Length) -> Array:
        """Return `w` of the lung's outer edge at height `v`: a dome at the apex, nearly straight below."""
        p = self.patient
        axis, widest = 0.36 * p.half_width, 0.68 * self.base
        rise = 1 - np.clip(v / widest, 0, 1)
        narrowing = 1 - 0.03 * np.clip(v / widest - 1, 0, 1)
        return np.asarray(axis + (p.half_width - axis) * np.sqrt(1 - rise**2) * narrowing)

    def medial(self, v: Length) -> Array:
        """Return `w` of the lung's inner edge, hidden by the mediastinum below the apex."""
        axis, inner = 0.36 * self.patient.half_width, 6.0
        rise = 1 - np.clip(v / 45, 0, 1)
        return np.asarray(axis - (axis - inner) * np.sqrt(1 - rise**2))

    def diaphragm(self, w: Length, side: Side) -> Array:
        """Return `v` of the hemidiaphragm at distance `w`: a dome that falls to the costophrenic angle."""
        p = self.patient
        height = p.dome[0 if side == RIGHT else 1] * self.pose.inspiration**-0.5
        top = 0.46 * p.half_width
        outward = np.clip((w - top) / (p.half_width - top), 0, None)
        inward = np.clip((top - w) / top, 0, None)
        return np.asarray(self.base - height * (1 - outward**2.3) + 0.3 * height * inward**2)

    def spine(self, v: Length) -> Array:
        """Return `u` of the middle of the spine."""
        return np.asarray(self.patient.scoliosis * np.sin(v / 55) + 3 * self.pose.yaw)

    def mediastinal_edge(self, v: Length, side: Side) -> Array:
        """Return `w` of the mediastinum above the heart, as knots of the silhouette joined by lines."""
        m, knob = self.patient.mediastinum, self.patient.knob
        heights = np.array([-20, 15, 45, 58, 72, 88, 108, 130, 160, 280], np.float32) * self.base / 238
        if side == LEFT:
            widths = np.array([m - 4, m - 3, m, m + 0.8 * knob, m + knob, m + 1, m + 5, m + 4, m - 2, m - 6])
        else:
            widths = np.array([m - 4, m - 4, m - 2, m - 1, m, m + 1, m + 2, m, m - 4, m - 8])
        return np.asarray(np.interp(v, heights, widths) + 6 * side * self.pose.yaw)

    def heart(self) -> tuple[float, float, float, float, float]:
        """Return centre ``(u, v)``, semi-axes and tilt of the heart's ellipse.

        The horizontal width is the cardiothoracic ratio times the inner width of the thorax.
        """
        p = self.patient
        ratio = p.heart_ratio_enlarged if self.enlarged else p.heart_ratio
        width = ratio * 2 * p.half_width
        tilt, flat = p.heart_tilt, 0.78
        long = width / 2 / np.sqrt(np.cos(tilt) ** 2 + (flat * np.sin(tilt)) ** 2)
        tall = long * np.sqrt(np.sin(tilt) ** 2 + (flat * np.cos(tilt)) ** 2)
        floor = float(self.diaphragm(0.4 * p.half_width, LEFT))
        centre = p.heart_shift * width + 9 * self.pose.yaw
        return float(centre), float(floor - 0.62 * tall), float(long), float(flat * long), float(tilt)

    def heart_radius(self, u: Length, v: Length) -> Array:
        """Return the squared elliptical radius about the heart's centre: below 1 inside."""
        cu, cv, a, b, tilt = self.heart()
        du, dv = u - cu, v - cv
        c, s = float(np.cos(tilt)), float(np.sin(tilt))
        return np.asarray(((c * du + s * dv) / a) ** 2 + ((c * dv - s * du) / b) ** 2)

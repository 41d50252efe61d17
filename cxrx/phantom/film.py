"""From a seed to a film: the path of the beam through the patient, scatter, noise, and the display curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from cxrx.phantom import FINDINGS, markers, skeleton
from cxrx.phantom.anatomy import Array, Thorax, draw_patient, draw_pose
from cxrx.phantom.findings import GAS, Lesion, Mask, bounding_box, draw_findings, plant
from cxrx.phantom.scene import Grid, Lung, cloud, make_grid, make_lungs
from cxrx.specs import Box

LUNG = 20.0  # mm of lung from which a pixel counts as lung
ATTENUATION = 0.019  # per mm of soft tissue, about 110 kV after filtration


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic frontal chest film and the truth about it.

    Attributes
    ----------
    pixels
        ``(rows, columns)`` float32 in [0, 1], as displayed: air black, bone white.
    labels
        Finding to 0 or 1, for every finding in `FINDINGS`.
    boxes
        One tight rectangle per lesion, in pixels of this film.
    masks
        Finding to ``(rows, columns)`` bool: all its lesions together. Only findings that are present.
    view
        ``"PA"`` or ``"AP"``.
    pixel_spacing
        mm per pixel at the detector.
    patient
        Number of the patient; two films of one patient share the build.
    lungs
        ``(rows, columns)`` bool, where the beam crosses more than 20 mm of lung.
    shortcut
        The planted marker (its ``finding`` names the label it goes with), or None.
    """

    pixels: Array
    labels: dict[str, int]
    boxes: tuple[Box, ...]
    masks: dict[str, Mask]
    view: str
    pixel_spacing: float
    seed: int
    index: int
    patient: int
    lungs: Mask
    shortcut: Box | None = None


def make_film(
    seed: int,
    index: int,
    *,
    size: tuple[int, int] = (512, 448),
    patient: int | None = None,
    shortcut: str | None = None,
    shortcut_strength: float = 0.9,
) -> Phantom:
    """Make one film; it depends on `seed`, `index` and `patient` only, not on other films.

    Parameters
    ----------
    seed, index
        Of the set of films, and of the film in it.
    size
        Rows and columns; the same seed shows the same patient at every resolution.
    patient
        Number of the patient, by default `index`: give two films the same number and they share anatomy.
    shortcut, shortcut_strength
        A finding that a small lead token in the lower left corner of the film shall go along with: it is present with
        probability `shortcut_strength` where the finding is, and one minus that where it is not. Nothing else changes.

    Raises
    ------
    ValueError
        For a size below 64 pixels, an unknown finding, or a strength outside [0, 1].
    """
    if min(size) < 64:
        raise ValueError(f"a film needs at least 64 pixels on each side, not {size[0]} x {size[1]}")
    if shortcut is not None and shortcut not in FINDINGS:
        raise ValueError(f"{shortcut!r} is no phantom finding; there are {', '.join(FINDINGS)}")
    if not 0 <= shortcut_strength <= 1:
        raise ValueError(f"the shortcut's strength is a probability, not {shortcut_strength}")
    patient = index if patient is None else patient
    build = draw_patient(np.random.default_rng([seed, 0, patient]))
    rng = np.random.default_rng([seed, 1, index])
    pose, present = draw_pose(rng), draw_findings(rng)
    thorax = Thorax(build, pose, enlarged="Cardiomegaly" in present)
    grid = make_grid(size, thorax)
    lungs = make_lungs(grid, thorax)
    lesions = [lesion for name in present for lesion in plant(name, grid, thorax, lungs, rng)]
    noise = np.random.default_rng([seed, 2, index])
    path = _beam_path(grid, thorax, lungs, lesions, rng, noise)
    pixels = _develop(path, grid, lungs, noise)
    markers.stamp(pixels, grid, rng)
    token = markers.plant_shortcut(
        pixels, grid, shortcut, shortcut in present, shortcut_strength, np.random.default_rng([seed, 3, index])
    )
    return Phantom(
        pixels=pixels,
        labels={name: int(name in present) for name in FINDINGS},
        boxes=tuple(bounding_box(lesion.finding, lesion.mask) for lesion in lesions),
        masks=_masks(lesions),
        view=pose.view,
        pixel_spacing=round(grid.spacing, 6),
        seed=seed,
        index=index,
        patient=patient,
        lungs=lungs[0].path + lungs[1].path > LUNG,
        shortcut=token,
    )


def _beam_path(
    grid: Grid,
    thorax: Thorax,
    lungs: tuple[Lung, Lung],
    lesions: list[Lesion],
    rng: np.random.Generator,
    noise: np.random.Generator,
) -> Array:
    """Return the water-equivalent path of the beam at every pixel (mm)."""
    bones, vessels = grid.strokes(), grid.strokes()
    for add in (skeleton.add_ribs, skeleton.add_spine, skeleton.add_shoulders, skeleton.add_airways):
        add(bones, thorax)
    skeleton.add_devices(bones, thorax, rng)
    skeleton.add_vessels(vessels, thorax)
    lung = lungs[0].path + lungs[1].path
    body = skeleton.body(grid.u, grid.v, thorax)
    inside = np.clip(body / 40, 0, 1)
    texture = 1.8 * thorax.patient.vessels * cloud(noise, grid.shape, 0.9) * np.clip(lung / 60, 0, 1)
    tissue = 4.0 * cloud(noise, grid.shape, 1.8) * inside
    shown = np.clip(lung / 40, 0, 1)
    for lesion in lesions:
        shown = shown * (1 - lesion.hides)
    path = body - GAS * lung + bones.render() * inside + vessels.render() * shown + texture * shown + tissue
    path += skeleton.bowel_gas(grid.u, grid.v, thorax, rng)
    for lesion in lesions:
        path += lesion.path
    return np.maximum(path, 0).astype(np.float32)


def _develop(path: Array, grid: Grid, lungs: tuple[Lung, Lung], rng: np.random.Generator) -> Array:
    """Expose and process: attenuation, scatter, quantum noise, dynamic range compression, display curve."""
    pose = grid.pose
    primary = np.exp(-ATTENUATION * path)
    scatter = blur_wide(primary, 30 / grid.spacing)
    signal = primary + pose.scatter * 0.5 * np.minimum(scatter, 0.25)
    density = -np.log(signal)
    # quanta per pixel go with its area; where less light arrives, relative noise is larger
    grain = pose.noise * (0.8 / grid.spacing) / np.sqrt(np.maximum(signal, 1e-3) / 0.1)
    density += grain * rng.standard_normal(grid.shape).astype(np.float32)
    density -= pose.flatten * blur_wide(density, 22 / grid.spacing)
    lung = (lungs[0].path + lungs[1].path) > 60
    low = float(np.percentile(density[lung], 5))
    high = float(np.percentile(density[path > 150], 98))
    shown = pose.dark + (density - low) * ((pose.bright - pose.dark) / (high - low))
    shown = np.clip(shown, 0, 1) ** pose.gamma
    knee = 0.85  # a soft shoulder instead of burnt-out bones
    shown = np.where(shown > knee, knee + (1 - knee) * np.tanh((shown - knee) / (1 - knee)), shown)
    return np.asarray(np.clip(shown, 0, 1), np.float32)


def blur_wide(image: Array, sigma: float) -> Array:
    """Blur by a Gaussian of many pixels, on a coarser grid for speed."""
    factor = max(1, int(sigma // 3))
    rows, columns = image.shape
    padded = np.pad(image, ((0, -rows % factor), (0, -columns % factor)), mode="edge")
    coarse = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor).mean((1, 3))
    smooth = gaussian_filter(coarse, sigma / factor, truncate=3.0, mode="nearest")
    fine = zoom(smooth, factor, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine[:rows, :columns], np.float32)


def _masks(lesions: list[Lesion]) -> dict[str, Mask]:
    """Join the lesions of each finding."""
    masks: dict[str, Mask] = {}
    for lesion in lesions:
        masks[lesion.finding] = masks[lesion.finding] | lesion.mask if lesion.finding in masks else lesion.mask
    return masks

"""Read a results file from end to end and name whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from cxrx.errors import CxrxError
from cxrx.results.parts import is_image_id
from cxrx.results.private import private_path, read_private
from cxrx.results.ragged import RAGGED, index_ragged
from cxrx.results.records import STAGES, fingerprint
from cxrx.results.schema import (
    FINGERPRINT,
    SETTINGS,
    UNREADABLE,
    chunk_rows,
    first_line,
    get_attrs,
    is_sealed,
    open_checked,
    reading,
    texts,
)
from cxrx.results.seal import BROKEN, UNSEALED, seal_of
from cxrx.results.truth import read_boxes, read_masks

_GROUPS = ("predictions", "maps", "runs")
_COLUMNS = {
    "images": ("patient", "sha256", "view", "rows", "columns", "decoder", "status", "message", "synthetic"),
    "failures": ("id", "stage", "code", "message", "model", "method"),
}


def verify(path: str | Path) -> list[str]:
    """Return the problems of the results file at `path` as sentences; none: it is sound.

    The checksum over the whole file tells of any byte that is not the one that was written. Then everything is read
    and held against the rules of the schema, which names what is damaged; of a file from before version 1.1 of the
    schema that is all there is, see :func:`not_covered`.
    """
    path = Path(path)
    try:
        file = open_checked(path)
    except CxrxError as error:
        return [str(error)]
    with file:
        seal = seal_of(path)
        problems = [f"{path.name} is damaged: {BROKEN}"] if seal == "broken" else []
        if seal == "none" and is_sealed(file):
            problems.append(f"{path.name}: {UNSEALED}")
        if missing := _run(_missing, file, path.name):
            return problems + missing
        for check in (_check_data_sets, _check_images, _check_predictions, _check_maps, _check_truth, _check_failures):
            problems += _run(check, file, path.name)
        problems += _check_private(path)
    return problems


def not_covered(path: str | Path) -> list[str]:
    """Return the data sets whose numbers could change without :func:`verify` seeing it: none but in old files."""
    datasets: list[h5py.Dataset] = []
    with open_checked(Path(path)) as file:
        if not is_sealed(file):
            datasets = _data_sets(file)
        # a bare dimension has no numbers; the stream of gzip has a checksum of its own
        return [d.name for d in datasets if not (d.fletcher32 or d.compression or d.id.get_storage_size() == 0)]


def _run(check: Callable[[h5py.File], Iterator[str]], file: h5py.File, name: str) -> list[str]:
    """Run one check; what it cannot read is a problem too."""
    problems: list[str] = []
    try:
        with reading(name):
            problems.extend(check(file))
    except CxrxError as error:
        problems.append(str(error))
    return problems


def _missing(file: h5py.File) -> Iterator[str]:
    needed = ["image_id", "finding", *_GROUPS, *(f"{name}/{c}" for name, cs in _COLUMNS.items() for c in cs)]
    yield from (f"/{name} is missing" for name in needed if name not in file)


# ---------------------------------------------------------------------------------------------------------------------
# Every data set


def _check_data_sets(file: h5py.File) -> Iterator[str]:
    for dataset in _data_sets(file):
        if missing := [name for name in ("units", "axes", "long_name") if name not in dataset.attrs]:
            yield f"{dataset.name} does not say its {' and '.join(missing)}"
        if dataset.dtype == np.float16:
            yield f"{dataset.name} is float16, which netCDF cannot read"
        if not dataset.is_scale and not all(len(axis) for axis in dataset.dims):
            yield f"{dataset.name} has an axis without a scale"
        elif not dataset.is_scale and any(
            axis[0].shape != (size,) for axis, size in zip(dataset.dims, dataset.shape, strict=True)
        ):
            yield f"{dataset.name} does not have the size of its scales"
        try:
            for piece in _pieces(dataset):
                dataset[piece]
        except UNREADABLE as error:
            yield f"{dataset.name} cannot be read: {first_line(error)}"


def _data_sets(file: h5py.File) -> list[h5py.Dataset]:
    datasets: list[h5py.Dataset] = []
    file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
    return datasets


def _pieces(dataset: h5py.Dataset) -> Iterator[tuple[int, int] | slice]:
    """Cut a data set into what is read at once; maps that were never written are left out."""
    if _is_sparse(dataset):
        yield from _written(dataset)
    else:
        step = chunk_rows(dataset.shape, dataset.dtype) if dataset.ndim > 1 else 1 << 20
        for start in range(0, dataset.shape[0], step):
            yield slice(start, start + step)


def _is_sparse(dataset: h5py.Dataset) -> bool:
    return bool(dataset.ndim > 2 and dataset.chunks == (1, 1, *dataset.shape[2:]))


def _written(dataset: h5py.Dataset) -> list[tuple[int, int]]:
    """Return (film, finding) of the maps that take space."""
    places: list[tuple[int, int]] = []
    dataset.id.chunk_iter(lambda chunk: places.append((int(chunk.chunk_offset[0]), int(chunk.chunk_offset[1]))))
    return places


# ---------------------------------------------------------------------------------------------------------------------
# Films


def _check_images(file: h5py.File) -> Iterator[str]:
    image_ids, group = texts(file["image_id"]), file["images"]
    if len(set(image_ids)) != len(image_ids):
        yield "/image_id lists a film twice"
    if bad := [image_id for image_id in image_ids if not is_image_id(image_id)]:
        yield f"/image_id holds {len(bad)} that are not 16 hex digits"
    if wrong := [d for i, d in zip(image_ids, texts(group["sha256"]), strict=True) if len(d) != 64 or d[:16] != i]:
        yield f"/images/sha256 does not fit /image_id for {len(wrong)} films"
    if (group["status"][...] > 3).any():
        yield "/images/status holds numbers above 3"
    yield from _check_patients(image_ids, texts(group["patient"]))
    findings = texts(file["finding"])
    if len(set(findings)) != len(findings):
        yield "/finding lists a finding twice"


def _check_patients(image_ids: Sequence[str], patients: Sequence[str]) -> Iterator[str]:
    films: dict[str, list[str]] = {}
    for image_id, patient in zip(image_ids, patients, strict=True):
        films.setdefault(patient, []).append(image_id)
    if wrong := [patient for patient, members in films.items() if patient != min(members)]:
        yield f"/images/patient is not the smallest image_id of the patient's films for {len(wrong)} patients"


# ---------------------------------------------------------------------------------------------------------------------
# Predictions and maps


def _check_group(group: h5py.Group, file: h5py.File) -> Iterator[str]:
    attrs = get_attrs(group)
    if SETTINGS not in attrs or attrs.get(FINGERPRINT) != fingerprint(attrs[SETTINGS]):
        yield f"{group.name} has a fingerprint that is not that of its settings"
    if unknown := set(texts(group["finding"])) - set(texts(file["finding"])):
        yield f"/finding does not list {', '.join(sorted(unknown))} of {group.name}"


def _check_predictions(file: h5py.File) -> Iterator[str]:
    N = len(file["image_id"])
    for group in file["predictions"].values():
        yield from _check_group(group, file)
        K = len(group["finding"])
        shapes = {"present": (N,), "logit": (N, K), "probability": (N, K), "affine": (N, 2, 3)}
        if wrong := [name for name, shape in shapes.items() if group[name].shape != shape]:
            yield f"{group.name} has {' and '.join(wrong)} of another size than its films and findings"
            continue
        present = group["present"][...] == 1
        probability = group["probability"][...]
        if (group["present"][...] > 1).any():
            yield f"{group.name}/present holds other numbers than 0 and 1"
        if not np.isnan(group["logit"][...][~present]).all() or not np.isnan(probability[~present]).all():
            yield f"{group.name} has numbers where it is not present"
        if np.isnan(probability[present]).any():
            yield f"{group.name}/probability lacks numbers where it is present"
        with np.errstate(invalid="ignore"):
            if ((probability < 0) | (probability > 1)).any():
                yield f"{group.name}/probability holds numbers outside 0 to 1"
        if not np.isfinite(group["affine"][...][present]).all():
            yield f"{group.name}/affine lacks numbers where it is present"


def _check_maps(file: h5py.File) -> Iterator[str]:
    N = len(file["image_id"])
    for methods in file["maps"].values():
        for group in methods.values():
            yield from _check_group(group, file)
            if get_attrs(group).get("layout") == RAGGED:
                yield from _check_ragged(group, file)
                continue
            shape = (N, len(group["finding"]))
            arrays = [group["present"], group["score"], group["values"], *group["extras"].values()]
            if wrong := [array.name for array in arrays if not array.is_scale and array.shape[:2] != shape]:
                yield f"{' and '.join(wrong)} are of another size than their films and findings"
            else:
                yield from _check_values(group)


def _check_values(group: h5py.Group) -> Iterator[str]:
    if (group["present"][...] > 1).any():
        yield f"{group.name}/present holds other numbers than 0 and 1"
    present: NDArray[np.bool_] = group["present"][...] == 1
    there = np.zeros_like(present)
    values = group["values"]
    if _is_sparse(values):
        for place in _written(values):
            there[place] = True
    else:
        for piece in _pieces(values):
            there[piece] = ~np.isnan(values[piece]).all(axis=(2, 3))
    if lacking := int((present & ~there).sum()):
        yield f"{group.name} lacks {lacking} maps that are marked present"
    if stray := int((there & ~present).sum()):
        yield f"{group.name} holds {stray} maps that are not marked present"


def _check_ragged(group: h5py.Group, file: h5py.File) -> Iterator[str]:
    index, known = index_ragged(group), set(texts(file["image_id"]))
    if len({key for key, _, _ in index}) != len(index):
        yield f"{group.name} holds two maps of one film and finding"
    if {image for (image, _), _, _ in index} - known:
        yield f"{group.name} holds maps of films that are not listed"
    end = 0
    for _, start, (rows, columns) in index:
        if start != end or rows < 1 or columns < 1:
            yield f"{group.name} has maps that do not lie one after the other"
            return
        end = start + rows * columns
    if end != group["values"].shape[0]:
        yield f"{group.name}/values has another size than its maps together"


# ---------------------------------------------------------------------------------------------------------------------
# Truth, failures, links


def _check_truth(file: h5py.File) -> Iterator[str]:
    if "truth" not in file:
        return
    group, known, findings = file["truth"], set(texts(file["image_id"])), set(texts(file["finding"]))
    if not np.isin(group["labels"][...], (-2, -1, 0, 1)).all():
        yield "/truth/labels holds other numbers than 1, 0, -1 and -2"
    boxes, masks = read_boxes(group), read_masks(group)
    if {box[0] for box in boxes} - known or {mask.image_id for mask in masks} - known:
        yield "/truth speaks of films that are not listed"
    if {box[1] for box in boxes} - findings or {mask.finding for mask in masks} - findings:
        yield "/truth speaks of findings that are not listed"
    if not all(np.isfinite(box[2:]).all() and box[4] > 0 and box[5] > 0 for box in boxes):
        yield "/truth/boxes holds a box without area"
    if not all(int(mask.runs.sum()) == mask.shape[0] * mask.shape[1] for mask in masks):
        yield "/truth/masks holds a mask whose runs do not fill its shape"


def _check_failures(file: h5py.File) -> Iterator[str]:
    if unknown := set(texts(file["failures/stage"])) - set(STAGES):
        yield f"/failures/stage holds {', '.join(sorted(unknown))}; stages are {', '.join(STAGES)}"


def _check_private(path: Path) -> list[str]:
    table = private_path(path)
    try:
        read_private(table)
    except CxrxError as error:
        return [str(error)]
    if table.exists() and table.stat().st_mode & 0o077:
        return [f"{table.name} can be read by others than its owner"]
    return []

"""Conformance of metrics, readers, data sets and exporters."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from cxrx.reading.options import ReadOptions
from cxrx.specs import DatasetSpec, ExporterSpec, Film, FilmTruth, MetricSpec, ReaderSpec, Split, Unreadable
from cxrx.testing.outcome import Outcome, attempt, require, require_names, require_options

# ---------------------------------------------------------------------------------------------------------------------
# Metrics

_COLUMNS = (
    "image_id", "patient", "model", "method", "method_a", "method_b", "model_a", "model_b", "finding", "probability",
    "area", "outcome",
)  # fmt: skip
"""What a row of a table says beside the numbers of metrics."""

METRIC_KINDS = ("localisation", "agreement", "faithfulness")


def check_metric(spec: MetricSpec) -> list[Outcome]:
    """Check a metric: it takes what its kind says, returns named numbers, twice the same, and changes nothing."""
    subject = f"metric {spec.name}"
    declared = attempt(subject, "declaration", lambda: _declared_metric(spec))
    if not declared.passed:
        return [declared]
    outcomes = [
        declared,
        attempt(subject, "numbers", lambda: _numbers(spec)),
        attempt(subject, "names", lambda: _names(spec)),
    ]
    if spec.kind != "faithfulness":
        outcomes.append(attempt(subject, "map without evidence", lambda: _all_zero(spec)))
    return outcomes


def _declared_metric(spec: MetricSpec) -> None:
    require_names(spec)
    require(spec.kind in METRIC_KINDS, f"kind is one of {', '.join(METRIC_KINDS)}, not {spec.kind!r}")
    require(callable(spec.compute), "compute must be callable")


def _metric_input(spec: MetricSpec) -> tuple[Any, ...]:
    import numpy as np

    if spec.kind == "faithfulness":
        return _faithful_input()
    rng = np.random.default_rng(0)
    map_2d = rng.standard_normal((7, 9), dtype=np.float32)
    if spec.kind == "agreement":
        return map_2d, rng.standard_normal((7, 9), dtype=np.float32)
    truth = np.zeros((56, 72), dtype=bool)
    truth[16:32, 24:48] = True
    return map_2d, truth


def _numbers(spec: MetricSpec) -> str:
    if spec.kind == "faithfulness":
        return _faithful_numbers(spec)
    given, kept = _metric_input(spec), _metric_input(spec)
    first, second = spec.compute(*given), spec.compute(*given)
    require(isinstance(first, Mapping) and first, f"compute must return a dict of numbers, not {first!r}")
    for name, value in first.items():
        require(isinstance(name, str) and _is_number(value), f"{name!r}: {value!r} is no number with a name")
    require(repr(first) == repr(second), "computing twice gives other numbers")
    require(all((a == b).all() for a, b in zip(given, kept, strict=True)), "compute changed its input in place")
    return ", ".join(first)


def _is_number(value: Any) -> bool:
    import numbers

    return isinstance(value, numbers.Real)


def _all_zero(spec: MetricSpec) -> None:
    """Check that a map of zeros, as a CAM gives where there is no evidence, is taken like any other."""
    first, second = _metric_input(spec)
    spec.compute(first * 0, second)


def _names(spec: MetricSpec) -> None:
    """Check that no number has the name of another in the tables of its kind, which it would stand in the place of."""
    from cxrx.compare.selection import taken_keys
    from cxrx.compare.specs import BUILTIN_METRICS
    from cxrx.registry import load

    if spec in BUILTIN_METRICS:
        return
    given = _metric_input(spec)
    taken = dict.fromkeys(_COLUMNS, "a column of the table")
    for key, owner in taken_keys(spec.kind).items():
        if load().metrics.get(owner) is not spec:
            taken.setdefault(key, f"a number of {owner}")
    clashes = [f"{name!r} is {taken[name]}" for name in spec.compute(*given) if name in taken]
    require(not clashes, f"{'; '.join(clashes)}: choose another name")


def _faithful_input() -> tuple[Any, ...]:
    import torch

    from cxrx.testing.networks import tiny_cnn

    model = tiny_cnn()
    generator = torch.Generator().manual_seed(0)
    x = model.prepare(torch.rand(2, *model.input.size, generator=generator))
    return model, x, torch.rand(2, 2, 8, 12, generator=generator), torch.tensor([[0, 1], [2, -1]])


def _faithful_numbers(spec: MetricSpec) -> str:
    numbers = spec.compute(*_faithful_input())
    require(isinstance(numbers, Mapping) and numbers, f"compute must return a dict, not {numbers!r}")
    for name, value in numbers.items():
        require(tuple(value.shape) == (2, 2), f"{name!r} has shape {tuple(value.shape)}, not (B, T) = (2, 2)")
    return ", ".join(numbers)


# ---------------------------------------------------------------------------------------------------------------------
# Readers


def check_reader(spec: ReaderSpec, sample: Path | None = None) -> list[Outcome]:
    """Check a reader: it claims only its own files, and yields films as the contract says.

    Parameters
    ----------
    spec
        The reader.
    sample
        A file of its format; without one only the refusal of other files is checked.
    """
    subject = f"reader {spec.name}"
    outcomes = [
        attempt(subject, "declaration", lambda: require_names(spec)),
        attempt(subject, "foreign files", lambda: _foreign(spec)),
    ]
    if sample is None:
        return [*outcomes, Outcome(subject, "sample", passed=True, message="not tried: --sample FILE checks more")]
    return [
        *outcomes,
        attempt(subject, "sample", lambda: _sample(spec, sample)),
        attempt(subject, "truncated sample", lambda: _truncated(spec, sample)),
    ]


def _foreign(spec: ReaderSpec) -> None:
    """Check that neither an empty file nor noise is claimed, and that sniffing does not raise."""
    for head in (b"", bytes(range(256)) * 2):
        claimed = spec.sniff(Path("some.file"), head)
        require(isinstance(claimed, bool), f"sniff must return True or False, not {claimed!r}")
        require(not claimed, "sniff claims a file that is not of its format")


def _sample(spec: ReaderSpec, sample: Path) -> str:
    """Check what a file yields: films that keep the contract and have an identity each, the same every time."""
    content = sample.read_bytes()
    require(spec.sniff(sample, content[:512]) is True, "sniff does not know the sample")
    first, second = list(spec.open(sample)), list(spec.open(sample))
    require(sample.read_bytes() == content, "open changes the file")
    for read in first:
        require(isinstance(read, Film | Unreadable), f"open must yield cxrx.Film or Unreadable, not {read!r}")
    films = [read for read in first if isinstance(read, Film)]
    require(films, "open must yield a film of the sample at least")
    for film in films:
        _require_film(film)
    own, whole = hashlib.sha256(content).hexdigest(), len(first) == 1 and not films[0].member
    require(not whole or films[0].sha256 in ("", own), "sha256 must be that of the file's bytes, or empty")
    names = [read.member or str(number) for number, read in enumerate(first)]
    digests = [film.sha256 for film in films if film.sha256]
    require(
        len(set(names)) == len(names) and len(set(digests)) == len(digests),
        "each film of a file needs a member name and a sha256 (of its own bytes) that no other has: they identify it",
    )
    if spec.decode is not None:
        decoded = spec.decode(content, ReadOptions())
        alike = isinstance(decoded, Film) and decoded.pixels.tobytes() == films[0].pixels.tobytes()
        require(alike and len(first) == 1, "decode must give the one film that open yields")
    require(_summary(first) == _summary(second), "opening twice gives other films")
    unread = len(first) - len(films)
    return f"{len(films)} films" + (f", {unread} unreadable" if unread else "") if len(first) > 1 else ""


def _require_film(film: Film) -> None:
    import numpy as np

    require(
        isinstance(film.pixels, np.ndarray) and film.pixels.ndim == 2 and film.pixels.dtype == np.float32,
        "pixels must be a (rows, columns) float32 array",
    )
    require(film.pixels.size and film.pixels.min() >= 0 and film.pixels.max() <= 1, "pixels must lie in [0, 1]")
    require(re.fullmatch("([0-9a-f]{64})?", film.sha256), f"sha256 must be 64 hexadecimal digits, not {film.sha256!r}")


def _summary(read: Sequence[Film | Unreadable]) -> list[Any]:
    return [(r.pixels.tobytes(), r.sha256, r.member) if isinstance(r, Film) else r for r in read]


def _truncated(spec: ReaderSpec, sample: Path) -> None:
    """Check that half a file yields something unreadable (or what can be had of it) and does not raise."""
    content = sample.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / sample.name
        half.write_bytes(content[: len(content) // 2])
        for read in spec.open(half):
            require(isinstance(read, Film | Unreadable), f"open yields {type(read).__name__}")
            named = isinstance(read, Unreadable) and sample.name in read.message
            require(not named, "the message of an unreadable file must not hold its name")


# ---------------------------------------------------------------------------------------------------------------------
# Data sets and exporters


def check_dataset(spec: DatasetSpec, folder: Path | None = None) -> list[Outcome]:
    """Check a data set layout: it claims only its own folders; with an example `folder`, that it opens it."""
    subject = f"data set {spec.name}"
    outcomes = [
        attempt(subject, "declaration", lambda: require_names(spec)),
        attempt(subject, "foreign folder", lambda: _foreign_folder(spec)),
    ]
    if folder is None:
        return [*outcomes, Outcome(subject, "folder", passed=True, message="not tried: --sample FOLDER checks more")]
    return [*outcomes, attempt(subject, "folder", lambda: _folder(spec, folder))]


def _foreign_folder(spec: DatasetSpec) -> None:
    with tempfile.TemporaryDirectory() as folder:
        require(spec.sniff(Path(folder)) is False, "sniff must return False for an empty folder")


def _folder(spec: DatasetSpec, folder: Path) -> str:
    require(spec.sniff(folder) is True, "sniff does not know the folder")
    dataset = spec.open(folder)
    require(isinstance(dataset.name, str) and all(isinstance(f, str) for f in dataset.findings), "name, findings: text")
    unknown = dataset.truth("no/such/film.dcm")
    require(unknown is None, f"a film that no table names must give None, not {unknown!r}")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    known = [(path, truth) for path in paths if (truth := dataset.truth(path.relative_to(folder).as_posix()))]
    require(all(isinstance(truth, FilmTruth) for _, truth in known), "truth must return cxrx.specs.FilmTruth or None")
    for _, truth in known:
        _film(truth, dataset.findings)
    marked = [(path, truth) for path, truth in known if truth.boxes or truth.masks][:_PICTURES]
    seen = sum(_inside(path, truth) for path, truth in marked)
    pictures = f"; boxes or masks of {seen} lie inside their pictures" if marked else ""
    return f"{len(known)} of {len(paths)} files have labels or boxes{pictures}"


_PICTURES = 50
"""At most so many are opened to see whether boxes and masks fit them."""


def _inside(path: Path, truth: FilmTruth) -> bool:
    """Check boxes and masks against the picture itself; return whether some reader could open it."""
    from cxrx.registry import load

    with path.open("rb") as file:
        head = file.read(512)
    reader = next((reader for reader in load().readers.values() if reader.sniff(path, head)), None)
    films = [read for read in reader.open(path) if isinstance(read, Film)] if reader is not None else []
    if len(films) != 1:
        return False
    rows, columns = films[0].pixels.shape
    for box in truth.boxes:
        fits = box.x >= 0 and box.y >= 0 and box.x + box.width <= columns and box.y + box.height <= rows
        require(fits, f"a box reaches out of its picture of {rows} x {columns} pixels: {box}")
    for mask in truth.masks:
        require(mask.shape == (rows, columns), f"a mask of {mask.shape} is not of its picture's size {rows, columns}")
    return True


def _film(truth: FilmTruth, findings: Sequence[str]) -> None:
    """Check what is said of one film: labels, boxes and masks that mean something, of findings that are declared."""
    named = {*truth.labels, *(box.finding for box in truth.boxes), *(mask.finding for mask in truth.masks)}
    require(named <= set(findings), f"a film has findings that the data set does not declare: {named - set(findings)}")
    values = set(truth.labels.values())
    require(values <= {1, 0, -1}, f"a label is 1, 0 or -1 (leave out what is unknown), not {values - {1, 0, -1}}")
    require(truth.split in get_args(Split), f"split is one of {get_args(Split)}, not {truth.split!r}")
    for box in truth.boxes:
        sides = (box.x, box.y, box.width, box.height)
        sound = all(map(math.isfinite, sides)) and box.width > 0 and box.height > 0
        require(sound, f"a box needs a finite corner and a width and height above 0, not {sides}")
    for mask in truth.masks:
        area = mask.shape[0] * mask.shape[1]
        require(int(sum(mask.counts.tolist())) == area, f"the runs of a mask must fill its {area} pixels")


def check_exporter(spec: ExporterSpec) -> list[Outcome]:
    """Check how an exporter is declared; what it writes needs results, which its own tests have."""
    return [attempt(f"exporter {spec.name}", "declaration", lambda: _declared_exporter(spec))]


def _declared_exporter(spec: ExporterSpec) -> None:
    require_names(spec)
    require(spec.suffix == "" or spec.suffix.startswith("."), f"suffix {spec.suffix!r} must begin with a dot")
    if spec.options is not None:
        require_options(spec.options)
    parameters = inspect.signature(spec.write).parameters
    require(list(parameters)[:2] == ["results", "out"], "write must take (results, out, **options)")

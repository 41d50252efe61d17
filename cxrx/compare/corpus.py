"""The union of several results files: films, truth, predictions and maps under one roof.

What two files say of the same thing is taken from the first, with a warning.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxrx.datasets import FolderTruth, canonical, read_truth
from cxrx.errors import UsageError
from cxrx.metrics.controls import CONTROLS
from cxrx.metrics.geometry import Float, resize, to_source
from cxrx.results.plan import smallest_of
from cxrx.results.reader import Results, open_results
from cxrx.results.records import explained_score, input_size, is_demo, threshold_rule, thresholds
from cxrx.results.truth import UNKNOWN, Mask
from cxrx.specs import Score

Pair = tuple[str, str]  # (image_id, canonical finding)


@dataclass(frozen=True)
class FilmInfo:
    """One film of the union; `name` is its relative path where the link table is at hand, else empty."""

    image_id: str
    patient: str
    rows: int
    columns: int
    synthetic: bool
    name: str = ""


@dataclass
class Source:
    """Where the maps of one (model, method) lie in one file."""

    results: Results
    model: str
    method: str
    rows: dict[str, int]  # image_id -> row of the file
    names: list[str]  # findings as the file spells them
    columns: dict[str, int]  # canonical finding -> column
    present: NDArray[np.bool_]  # (N, K)
    relu: bool
    ragged: bool  # imported maps, each of its own size

    def has(self, pair: Pair) -> bool:
        """Tell whether the file holds this map."""
        row, column = self.rows.get(pair[0]), self.columns.get(pair[1])
        return row is not None and column is not None and bool(self.present[row, column])

    def read(self, pairs: Sequence[Pair]) -> dict[Pair, NDArray[np.float32]]:
        """Read the raw maps of `pairs`, which the file must hold, in one go where they share a grid."""
        if self.ragged:
            return {
                pair: self.results.maps(
                    self.method, self.model, image=pair[0], finding=self.names[self.columns[pair[1]]]
                )
                for pair in pairs
            }
        rows = sorted({self.rows[image_id] for image_id, _ in pairs})
        values = self.results.values(self.model, self.method, rows)
        place = {row: n for n, row in enumerate(rows)}
        return {pair: values[place[self.rows[pair[0]]]][self.columns[pair[1]]] for pair in pairs}


@dataclass
class ModelData:
    """One model over all files.

    Attributes
    ----------
    findings
        Canonical names, in the order of its outputs.
    logit, probability, affine
        By film: ``(K,)`` each, and ``(2, 3)``.
    input_size
        ``(height, width)``, or None for imported maps, which cover the picture itself.
    methods
        Method to its sources, one per file that has it.
    scores
        Method to what its maps explain.
    settings
        What decided the numbers, as the engine recorded it.
    threshold_rule
        By which its thresholds were chosen.
    controls
        Those of them that never look at the model, whatever they are called.
    """

    slug: str
    findings: tuple[str, ...]
    input_size: tuple[int, int] | None
    demo: bool
    thresholds: dict[str, float]
    fingerprint: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    threshold_rule: str = "f1-max"
    controls: set[str] = field(default_factory=set)
    logit: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    probability: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    affine: dict[str, Float] = field(default_factory=dict)
    methods: dict[str, list[Source]] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)

    def source(self, method: str, pair: Pair) -> Source | None:
        """Return the first file that holds this map."""
        return next((source for source in self.methods.get(method, []) if source.has(pair)), None)

    def probability_of(self, pair: Pair) -> float:
        """Return the probability of a finding on a film; NaN where it was not predicted."""
        row = self.probability.get(pair[0])
        return float("nan") if row is None or pair[1] not in self.findings else float(row[self.findings.index(pair[1])])

    def threshold(self, finding: str) -> float:
        """Return the probability from which a finding counts as found: what training chose, else 0.5."""
        return self.thresholds.get(finding, 0.5)

    def outcome(self, pair: Pair, label: int | None) -> str:
        """Return TP, FP, FN or TN; empty where the label (1 or 0) or the probability is not known."""
        probability = self.probability_of(pair)
        if label not in (0, 1) or np.isnan(probability):
            return ""
        found = probability >= self.threshold(pair[1])
        return ("TP" if found else "FN") if label == 1 else ("FP" if found else "TN")

    def targets(self, members: Sequence[Sequence[Pair]]) -> NDArray[np.int64]:
        """Return the indices ``(B, T)`` of the findings of `members`, the pairs of B films; -1 is empty."""
        targets = np.full((len(members), max(map(len, members))), -1, dtype=np.int64)
        for b, own in enumerate(members):
            targets[b, : len(own)] = [self.findings.index(finding) for _, finding in own]
        return targets

    def pairs(self) -> list[Pair]:
        """Return every (film, finding) that has a map of any method."""
        found: dict[Pair, None] = {}
        for source in (source for sources in self.methods.values() for source in sources):
            names, ids = {column: name for name, column in source.columns.items()}, list(source.rows)
            found |= {(ids[i], names[k]): None for i, k in np.argwhere(source.present).tolist()}
        return sorted(found)

    def covers(self, film: FilmInfo) -> bool:
        """Tell whether the model's maps of a film cover the film itself, as imported ones do."""
        return self.input_size is None or film.image_id not in self.affine

    def window(self, film: FilmInfo) -> tuple[Float, tuple[int, int]]:
        """Return what the maps of a film cover: an affine ``(2, 3)`` to its pixels, and the grid's (height, width)."""
        if self.input_size is None or self.covers(film):
            return np.array([[1.0, 0, 0], [0, 1.0, 0]]), (film.rows, film.columns)
        return self.affine[film.image_id], self.input_size

    def placed(self, values: ArrayLike, film: FilmInfo, shape: tuple[int, int] | None = None) -> Float:
        """Carry a map to the pixels of the film, or of a thumbnail of `shape`; unseen pixels are 0."""
        size = (film.rows, film.columns)
        shape = shape or size
        if self.covers(film):
            return resize(values, shape)
        affine, window = self.window(film)
        return to_source(values, scaled(affine, size, shape), window, shape)


def scaled(affine: Float, size: tuple[int, int], shape: tuple[int, int]) -> Float:
    """Rewrite an affine onto a picture of `size` for the same picture at `shape` (half-pixel rule)."""
    zoom = np.array([shape[1] / size[1], shape[0] / size[0]])  # x, y
    result: Float = affine * zoom[:, None]
    result[:, 2] += (zoom - 1) / 2
    return result


class Corpus:
    """Films, truth and models of several results files.

    Attributes
    ----------
    films
        By image_id, in the order of the files.
    labels
        image_id to finding to 1, 0 or -1.
    boxes
        (image_id, finding) to ``(n, 4)`` x, y, width, height.
    masks
        (image_id, finding) to a run-length encoded mask.
    models
        By slug.
    warnings
        Sentences on what did not fit together.
    """

    def __init__(self, files: Sequence[Results]) -> None:
        self.files = list(files)
        self.films: dict[str, FilmInfo] = {}
        self.labels: dict[str, dict[str, int]] = {}
        self.boxes: dict[Pair, Float] = {}
        self.masks: dict[Pair, Mask] = {}
        self.models: dict[str, ModelData] = {}
        self.warnings: list[str] = []
        self.matched = ""
        for results in self.files:
            self._add_films(results)
        self._join_patients()
        for results in self.files:
            self._add_truth(results)
            for slug in results.models():
                self._add_model(results, slug)
        self._warn_of_disjoint()

    def name(self, image_id: str) -> str:
        """Return the film's relative path where it is known, else its id."""
        film = self.films.get(image_id)
        return film.name if film and film.name else image_id

    def _add_films(self, results: Results) -> None:
        private = results.private()
        names = {} if private is None else dict(zip(private["image_id"], private["relative"], strict=True))
        table = results.images()
        table = table[table["status"].isin(["ok", "flagged"])]
        columns = (table[name].tolist() for name in ("image_id", "patient", "rows", "columns", "synthetic"))
        for image_id, patient, rows, width, synthetic in zip(*columns, strict=True):
            film = FilmInfo(image_id, patient or image_id, rows, width, synthetic, names.get(image_id, ""))
            self.films.setdefault(image_id, film)

    def _join_patients(self) -> None:
        """Give all films of a patient one key: a file knows only those of its own films."""
        links: list[tuple[str, str]] = []
        for results in self.files if len(self.files) > 1 else ():
            table, private = results.images(), results.private()
            links += [(i, key) for i, key in zip(table["image_id"], table["patient"], strict=True) if key]
            if private is not None:
                # a tilde sorts after every image_id, so that it never becomes the key
                links += [(i, f"~{key}") for i, key in zip(private["image_id"], private["patient"], strict=True) if key]
        keys = smallest_of(links)
        for image_id, film in self.films.items():
            self.films[image_id] = replace(film, patient=keys.get(image_id, film.patient))

    def _add_truth(self, results: Results) -> None:
        known = {image_id for image_id, _ in self.boxes}
        labels = results.labels()
        names = [canonical(name) for name in labels.columns]
        for image_id, row in zip(results.image_ids, labels.to_numpy(), strict=True):
            stated = {name: value for name, value in zip(names, row.tolist(), strict=True) if value != UNKNOWN}
            if stated:
                self.labels[image_id] = stated | self.labels.get(image_id, {})
        for image_id, finding, *corner in results.boxes().itertuples(index=False, name=None):
            if image_id not in known:
                self._add_boxes((image_id, canonical(finding)), np.array([corner], dtype=np.float64))
        for mask in results.masks():
            self.masks.setdefault((mask.image_id, canonical(mask.finding)), mask)

    def _add_boxes(self, pair: Pair, boxes: Float) -> None:
        self.boxes[pair] = np.concatenate([self.boxes[pair], boxes]) if pair in self.boxes else boxes

    def _add_model(self, results: Results, slug: str) -> None:
        findings = tuple(canonical(name) for name in results.findings(slug))
        attrs = _attrs(results, slug)
        mark = str(attrs.get("fingerprint", ""))
        model = self.models.get(slug)
        if model is None:
            model = self.models[slug] = ModelData(
                slug, findings, input_size(attrs), is_demo(attrs), thresholds(attrs), mark, attrs.get("settings", {}),
                threshold_rule(attrs),
            )  # fmt: skip
        elif model.findings != findings or model.fingerprint != mark:
            self.warnings.append(
                f"{results.path.name} holds another {slug} (its findings or settings differ); it was left out"
            )
            return
        ids = list(results.images()["image_id"])
        self._add_predictions(model, results, ids)
        for method in results.methods(slug):
            self._add_maps(model, results, method, ids)
        # what looks at the model comes first, in every table and picture
        model.methods = dict(sorted(model.methods.items(), key=lambda item: (item[0] in model.controls, item[0])))

    def _add_predictions(self, model: ModelData, results: Results, ids: list[str]) -> None:
        if not _attrs(results, model.slug):
            return  # imported maps have no predictions
        probability, affine = results.probabilities(model.slug), results.affine(model.slug)
        logit = results.logits(model.slug)
        differing = 0
        for row in np.flatnonzero(results.predicted(model.slug)).tolist():
            old = model.probability.setdefault(ids[row], probability[row])
            model.affine.setdefault(ids[row], affine[row])
            model.logit.setdefault(ids[row], logit[row])
            differing += not np.allclose(old, probability[row], atol=1e-3, equal_nan=True)
        if differing:
            self.warnings.append(
                f"{model.slug}: {results.path.name} gives other probabilities for {differing} films; the first count"
            )

    def _add_maps(self, model: ModelData, results: Results, method: str, ids: list[str]) -> None:
        attrs = results.attrs(model.slug, method)
        present = np.asarray(results.present(model.slug, method), dtype=bool)
        names = results.findings(model.slug, method)
        source = Source(
            results,
            model.slug,
            method,
            {image_id: i for i, image_id in enumerate(ids)},
            names,
            {canonical(name): k for k, name in enumerate(names)},
            present,
            relu=bool(attrs.get("relu", False)),
            ragged=attrs.get("layout") == "ragged",
        )
        sources = model.methods.setdefault(method, [])
        if sources:
            first = sources[0].results.attrs(model.slug, method)
            if first.get("fingerprint") != attrs.get("fingerprint"):
                self.warnings.append(
                    f"{results.path.name} holds {method} of {model.slug} with other settings; it was left out"
                )
                return
        sources.append(source)
        model.scores[method] = explained_score(attrs.get("settings") or {})
        if method in CONTROLS or attrs.get("control"):
            model.controls.add(method)

    def _warn_of_disjoint(self) -> None:
        before: set[str] = set()
        for results in self.files:
            mine = set(results.images()["image_id"])
            if before and mine and not mine & before:
                self.warnings.append(f"{results.path.name} has no film in common with those before; nothing is paired")
            before |= mine

    def add_truth(self, path: Path) -> None:
        """Take labels and boxes from a table, in the place of stored ones; :attr:`matched` says of how many films.

        Films are matched by their relative path through the private link table, else by image_id.
        """
        truth = read_truth(path)
        times = Counter(film.name for film in self.films.values() if film.name)
        if shared := {name for name, n in times.items() if n > 1}:
            self.warnings.append(f"{len(shared)} paths are of several films of the results: they get no truth")
            self.films = {i: replace(f, name="" if f.name in shared else f.name) for i, f in self.films.items()}
        truth.settle(truth.place(film.name or film.image_id) for film in self.films.values())
        self.warnings += truth.problems
        matched = [self._take(film, truth) for film in list(self.films.values())]
        keys = [name for film in self.films.values() for name in (film.name, film.image_id) if name]
        unknown = truth.unmatched(keys)
        if unknown:
            self.warnings.append(f"{path.name} names {unknown} films that are not in the results")
        if not any(matched):
            named = any(film.name for film in self.films.values())
            reason = (
                "other films" if named else "there is no results.private.csv beside the results with the films' names"
            )
            self.warnings.append(f"{path.name} matches none of the {len(self.films)} films: {reason}")
        self.warnings += truth.notes()
        self.matched = f"{path.name}: truth of {sum(matched)} of {len(self.films)} films"

    def _take(self, film: FilmInfo, truth: FolderTruth) -> bool:
        size = film.rows, film.columns
        known = (film.name and truth.truth(film.name, size=size)) or truth.truth(film.image_id, size=size)
        if not known:
            return False
        self.labels[film.image_id] = self.labels.get(film.image_id, {}) | {
            canonical(name): value for name, value in known.labels.items()
        }
        if known.boxes or known.masks:
            for pair in [pair for pair in (*self.boxes, *self.masks) if pair[0] == film.image_id]:
                self.boxes.pop(pair, None)
                self.masks.pop(pair, None)
            for box in known.boxes:
                corner = np.array([[box.x, box.y, box.width, box.height]])
                self._add_boxes((film.image_id, canonical(box.finding)), corner)
            for mask in known.masks:
                self.masks[film.image_id, canonical(mask.finding)] = Mask.of_film(film.image_id, mask)
        return True

    def unknown_truth(self) -> int:
        """Count the films that truth speaks of and that have no usable picture in the results."""
        return len({pair[0] for pair in (*self.boxes, *self.masks)} - set(self.films))

    def read(
        self, model: ModelData, method: str, pairs: Sequence[Pair], *, signed: bool = False
    ) -> dict[Pair, NDArray[np.float32]]:
        """Read maps in their published form (the ReLU of a method that publishes one, on the native grid).

        Parameters
        ----------
        model, method, pairs
            Which maps; one read per file.
        signed
            Leave them as they are stored.

        Returns
        -------
        maps
            ``(h, w)`` each; pairs without a map have no key.
        """
        by_source: dict[int, list[Pair]] = {}
        sources = model.methods.get(method, [])
        for pair in pairs:
            first = next((i for i, source in enumerate(sources) if source.has(pair)), None)
            if first is not None:
                by_source.setdefault(first, []).append(pair)
        maps: dict[Pair, NDArray[np.float32]] = {}
        for i, members in by_source.items():
            relu = sources[i].relu and not signed
            maps |= {pair: np.maximum(grid, 0) if relu else grid for pair, grid in sources[i].read(members).items()}
        return maps


def _attrs(results: Results, slug: str) -> dict[str, Any]:
    """Return the attributes of a model's predictions; none where maps were imported without a model."""
    try:
        return results.attrs(slug)
    except UsageError:
        return {}


@contextlib.contextmanager
def open_corpus(paths: Sequence[Path]) -> Iterator[Corpus]:
    """Open results files together.

    Raises
    ------
    UsageError
        If no path is given.
    ResultsError
        If a file is damaged or no results file.
    """
    if not paths:
        raise UsageError("compare needs at least one results file")
    with contextlib.ExitStack() as stack:
        yield Corpus([stack.enter_context(open_results(path)) for path in dict.fromkeys(paths)])

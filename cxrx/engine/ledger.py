"""What is done already: in the results file, and in the parts of an interrupted run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrx.errors import UsageError
from cxrx.results.parts import Done, PartStore
from cxrx.results.reader import open_results
from cxrx.results.records import differences


@dataclass
class Base:
    """What the existing results file holds for one model.

    Attributes
    ----------
    status
        image_id to status, in the order of the rows.
    probability, logit
        image_id to ``(K,)``, for films with a prediction.
    present
        Method key to image_id to the findings that have a map.
    labels
        image_id to finding to 1, 0 or -1.
    failed
        ``(image_id, method key)`` of maps that failed before.
    settings
        Of the predictions (key ``""``) and of each method.
    names
        image_id to relative path, and
    files
        ``(path, member, size, mtime_ns)`` to image_id, from the link table.
    """

    status: dict[str, str] = field(default_factory=dict)
    probability: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    logit: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    present: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: set[tuple[str, str]] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    files: dict[tuple[str, str, int, int], str] = field(default_factory=dict)


def read_base(out: Path, slug: str) -> Base:
    """Read what `out` holds for the model `slug`; an empty Base where there is no file."""
    base = Base()
    if not out.exists():
        return base
    with open_results(out) as results:
        images = results.images()
        base.status = dict(zip(images["image_id"], images["status"], strict=True))
        table = results.labels()
        for image_id, row in zip(table.index, table.to_numpy(), strict=True):
            base.labels[str(image_id)] = {f: int(v) for f, v in zip(table.columns, row, strict=True) if v != -2}
        for link in results.links():
            if link.kind == "film":
                base.files[link.path, link.member, link.size, link.mtime_ns] = link.image_id
                base.names[link.image_id] = link.relative
        failures = results.failures()
        explained = failures[(failures["stage"] == "explain") & (failures["model"] == slug)]
        base.failed = set(zip(explained["image_id"].astype(str), explained["method"].astype(str), strict=True))
        if slug not in results.models():
            return base
        ids = [str(i) for i in images["image_id"]]
        logit, probability = results.logits(slug), results.probabilities(slug)
        for i, image_id in enumerate(ids):
            if np.isfinite(logit[i]).all():
                base.logit[image_id], base.probability[image_id] = logit[i], probability[i]
        base.settings[""] = results.attrs(slug).get("settings", {})
        findings = np.array(results.findings(slug))
        for method in results.methods(slug):
            present = results.present(slug, method)
            rows = zip(ids, present, strict=True)
            base.present[method] = {image_id: frozenset(findings[row]) for image_id, row in rows if row.any()}
            base.settings[method] = results.attrs(slug, method).get("settings", {})
    return base


@dataclass
class Ledger:
    """Answers what of a film is still to do."""

    slug: str
    base: Base
    parts: Done
    failed: set[tuple[str, str]]
    retry_failed: bool = False

    @classmethod
    def read(cls, out: Path, store: PartStore, slug: str, *, retry_failed: bool) -> Ledger:
        """Read the results file `out` and the parts beside it."""
        base, parts = read_base(out, slug), store.done()
        failed = base.failed | {(f.image_id, f.method) for f in parts.failures if f.model == slug}
        return cls(slug, base, parts, failed, retry_failed)

    def check(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse to mix numbers made with other settings under one name.

        Parameters
        ----------
        settings
            Of the predictions (key ``""``) and of each method key of this run.

        Raises
        ------
        UsageError
            The file holds the same key with other settings; the differences are named.
        """
        for key, new in settings.items():
            old = self.base.settings.get(key)
            if old is not None and (changed := differences(old, new)):
                what = f"maps of {key!r}" if key else "predictions"
                raise UsageError(
                    f"the results already hold {what} of {self.slug} made with other settings: {'; '.join(changed)}",
                    "store these under another name with --as NAME" if key else "name another file with -o",
                )

    def known_id(self, key: tuple[str, str, int, int]) -> str | None:
        """Return the image_id of the file ``(path, member, size, mtime_ns)``, if it was read before."""
        return self.parts.files.get(key) or self.base.files.get(key)

    def status(self, image_id: str) -> str | None:
        """Return what became of a film, or None for one never seen."""
        record = self.parts.images.get(image_id)
        return record.status.name.lower() if record is not None else self.base.status.get(image_id)

    def unusable(self, image_id: str) -> bool:
        """Whether the film failed or was skipped before and is not to be tried again."""
        status = self.status(image_id)
        return status == "skipped" or (status == "failed" and not self.retry_failed)

    def predicted(self, image_id: str) -> bool:
        """Whether the film has a prediction of this model."""
        return image_id in self.base.logit or image_id in self.parts.predictions.get(self.slug, ())

    def mapped(self, image_id: str, method: str) -> frozenset[str]:
        """Return the findings of the film that have a map."""
        packed = self.base.present.get(method, {}).get(image_id, frozenset())
        return packed | self.parts.maps.get((self.slug, method), {}).get(image_id, frozenset())

    def map_failed(self, image_id: str, method: str) -> bool:
        """Whether the film failed at this method before and is not to be tried again."""
        return not self.retry_failed and (image_id, method) in self.failed

    def taken_up(self, image_id: str, method: str) -> bool:
        """Whether the parts hold this film's maps, be they none."""
        return image_id in self.parts.maps.get((self.slug, method), {})

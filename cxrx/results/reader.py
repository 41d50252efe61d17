"""Read results.h5: tables as pandas, arrays as NumPy, one map at a time or many."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cxrx.errors import ResultsError, UsageError
from cxrx.reading.record import Link, Status
from cxrx.results.locate import locate
from cxrx.results.outcomes import tally
from cxrx.results.private import private_path, read_private
from cxrx.results.ragged import RAGGED, index_ragged
from cxrx.results.records import FloatArray
from cxrx.results.schema import get_attrs, open_checked, reading, texts
from cxrx.results.seal import BROKEN, seal_at_once
from cxrx.results.truth import UNKNOWN, Mask, read_boxes, read_masks

if TYPE_CHECKING:
    import h5py
    import pandas as pd

log = logging.getLogger("cxrx")

STATUS_NAMES = {Status.OK: "ok", Status.FLAGGED: "flagged", Status.FAILED: "failed", Status.SKIPPED: "skipped"}


def open_results(path: str | Path) -> Results:
    """Open a results file for reading; use it as a context manager, or close it.

    Raises
    ------
    UsageError
        If it is missing.
    ResultsError
        If it is damaged, foreign, unfinished or of another major schema version.

    Examples
    --------
    >>> from pathlib import Path
    >>> import cxrx, numpy as np
    >>> Path("maps").mkdir()
    >>> np.save("maps/film1__Mass.npy", np.eye(8, dtype=np.float32))
    >>> out = cxrx.import_maps("maps", out="results.h5", method="mine")
    >>> with cxrx.open_results("results.h5") as r:
    ...     films, methods = r.images(), r.methods()
    ...     map_2d = r.maps("mine", image=films.image_id[0], finding="Mass")
    >>> films.status.tolist(), methods, map_2d.shape
    (['ok'], ['mine'], (8, 8))
    """
    return Results(path)


class Results:
    """A results file, open for reading.

    Wherever a model is asked for, its slug will do, or the part of it before ``@`` while that is unique, or None where
    the file has one model. `N` films, in the order of :meth:`images`; `K` findings of the model or method.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open_checked(self.path)
        self._ragged: dict[tuple[str, str], dict[tuple[str, str], tuple[int, tuple[int, int]]]] = {}
        try:
            with self._reading():
                if seal_at_once(self.path) == "broken":
                    log.warning("%s is damaged: %s (see: cxrx verify)", self.path.name, BROKEN)
                self.image_ids: list[str] = texts(self._file["image_id"])
                self._row = {image_id: i for i, image_id in enumerate(self.image_ids)}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Results {self.path.name}: {len(self.image_ids)} films, {len(self.models())} models>"

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    def _reading(self) -> Any:
        return reading(self.path.name)

    # -----------------------------------------------------------------------------------------------------------------
    # What there is

    def models(self) -> list[str]:
        """Return the slugs of all models that have predictions or maps."""
        with self._reading():
            return sorted({*self._file["predictions"], *self._file["maps"]})

    def methods(self, model: str | None = None) -> list[str]:
        """Return the methods that have maps: on `model`, or on any."""
        with self._reading():
            maps = self._file["maps"]
            models = list(maps) if model is None else [slug for slug in [self.model(model)] if slug in maps]
            return sorted({method for slug in models for method in maps[slug]})

    def findings(self, model: str | None = None, method: str | None = None) -> list[str]:
        """Return the findings of `model` (those with maps of `method`), or of the whole file."""
        with self._reading():
            if model is None and method is None:
                return texts(self._file["finding"])
            slug = self.model(model)
            if method is None and slug in self._file["predictions"]:
                return texts(self._file["predictions"][slug]["finding"])
            if method is not None and not self._is_ragged(self._maps(slug, method)):
                return texts(self._maps(slug, method)["finding"])
            named = [texts(group["finding"]) for group in self._file["maps"][slug].values()]
            return list(dict.fromkeys(finding for names in named for finding in names))

    def model(self, name: str | None = None) -> str:
        """Return the slug that `name` stands for.

        Raises
        ------
        UsageError
            If it stands for none, or for several.
        """
        models = self.models()
        if name is None:
            found = models
        else:
            found = [slug for slug in models if slug == name] or [slug for slug in models if slug.split("@")[0] == name]
        if len(found) == 1:
            return found[0]
        there = ", ".join(models) or "none"
        if found:
            raise UsageError(f"{self.path.name} holds several models", f"name one of {there}")
        raise UsageError(f"{self.path.name} holds no model{f' {name!r}; it holds {there}' if name else ''}")

    def row(self, image: str) -> int:
        """Return the row of the film with this image_id.

        Raises
        ------
        UsageError
            If there is none.
        """
        if image not in self._row:
            raise UsageError(f"{self.path.name} holds no film {image!r}", "list them with: cxrx info")
        return self._row[image]

    # -----------------------------------------------------------------------------------------------------------------
    # Tables

    def images(self) -> pd.DataFrame:
        """Return one row a film, its image_id first; `status` is ok, flagged, failed or skipped."""
        import pandas as pd

        with self._reading():
            group = self._file["images"]
            table: dict[str, Any] = {"image_id": self.image_ids}
            table |= {name: texts(group[name]) for name in ("patient", "sha256", "view")}
            table |= {name: group[name][...] for name in ("rows", "columns")}
            table["decoder"] = texts(group["decoder"])
            table["status"] = [STATUS_NAMES[Status(value)] for value in group["status"][...].tolist()]
            table["message"] = texts(group["message"])
            table["synthetic"] = group["synthetic"][...].astype(bool)
            return pd.DataFrame(table)

    def predictions(self) -> pd.DataFrame:
        """Return one row a film, model and finding: image_id, model, finding, logit, probability."""
        import pandas as pd

        columns = ["image_id", "model", "finding", "logit", "probability"]
        tables = []
        for slug in self.models():
            if slug not in self._file["predictions"]:
                continue
            rows, names = np.flatnonzero(self.predicted(slug)), self.findings(slug)
            table = {
                "image_id": np.repeat(np.array(self.image_ids, dtype=object)[rows], len(names)),
                "model": slug,
                "finding": names * len(rows),
                "logit": self.logits(slug)[rows].ravel(),
                "probability": self.probabilities(slug)[rows].ravel(),
            }
            tables.append(pd.DataFrame(table, columns=columns))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)

    def labels(self) -> pd.DataFrame:
        """Return the labels, int8, films by findings: 1 present, 0 absent, -1 uncertain, -2 unknown."""
        import pandas as pd

        with self._reading():
            names = self.findings()
            shape = (len(self.image_ids), len(names))
            there = "truth" in self._file
            values = self._file["truth/labels"][...] if there else np.full(shape, UNKNOWN, dtype=np.int8)
            return pd.DataFrame(values, index=pd.Index(self.image_ids, name="image_id"), columns=names)

    def boxes(self) -> pd.DataFrame:
        """Return one row a box, in source pixels: image_id, finding, x, y, width, height."""
        import pandas as pd

        with self._reading():
            rows = read_boxes(self._file["truth"]) if "truth" in self._file else []
            return pd.DataFrame(rows, columns=["image_id", "finding", "x", "y", "width", "height"])

    def masks(self) -> list[Mask]:
        """Return the true masks; ``mask.decode()`` gives ``(rows, columns)`` of the source."""
        with self._reading():
            return read_masks(self._file["truth"]) if "truth" in self._file else []

    def failures(self) -> pd.DataFrame:
        """Return what went wrong: image_id, stage, code, message, model, method."""
        import pandas as pd

        with self._reading():
            group = self._file["failures"]
            names = ("id", "stage", "code", "message", "model", "method")
            return pd.DataFrame({name: texts(group[name]) for name in names}).rename(columns={"id": "image_id"})

    def counts(self) -> dict[str, int]:
        """Return how many files are ok, flagged, failed, skipped or duplicates, see :mod:`cxrx.results.outcomes`."""
        images, failures = self.images(), self.failures()
        rows = zip(failures["image_id"], failures["stage"], failures["code"], strict=True)
        return tally(dict(zip(images["image_id"], images["status"], strict=True)), rows)

    def runs(self) -> list[dict[str, Any]]:
        """Return what is recorded of every run that wrote to this file, the oldest first."""
        with self._reading():
            return [get_attrs(group) for group in self._file["runs"].values()]

    def attrs(self, model: str | None = None, method: str | None = None) -> dict[str, Any]:
        """Return attributes: of the file, of a model's predictions (none: empty), or of a method's maps."""
        with self._reading():
            if model is None and method is None:
                return get_attrs(self._file)
            slug = self.model(model)
            if method is not None:
                return get_attrs(self._maps(slug, method))
            predictions = self._file["predictions"]
            return get_attrs(predictions[slug]) if slug in predictions else {}

    # -----------------------------------------------------------------------------------------------------------------
    # Predictions

    def predicted(self, model: str | None = None) -> NDArray[np.bool_]:
        """Return which films went through `model`, ``(N,)``."""
        return self._prediction(model, "present").astype(np.bool_)

    def logits(self, model: str | None = None) -> FloatArray:
        """Return the raw outputs of `model`, ``(N, K)``; NaN where a film was not predicted."""
        return self._prediction(model, "logit")

    def probabilities(self, model: str | None = None) -> FloatArray:
        """Return the probabilities of `model`, ``(N, K)``; NaN where a film was not predicted."""
        return self._prediction(model, "probability")

    def affine(self, model: str | None = None) -> NDArray[np.float64]:
        """Return ``(N, 2, 3)``: (x, y, 1) of the model's input grid to (x, y) of source pixels."""
        return self._prediction(model, "affine")

    def _prediction(self, model: str | None, name: str) -> NDArray[Any]:
        slug = self.model(model)
        with self._reading():
            if slug not in self._file["predictions"]:
                raise UsageError(f"{self.path.name} holds no predictions of {slug}")
            axes = {"present": 1, "affine": 1}.get(name, 2)
            return self._array(self._file["predictions"][slug], name, axes)

    def _array(self, group: h5py.Group, name: str, axes: int = 2) -> NDArray[Any]:
        with self._reading():
            array: NDArray[Any] = self._sized(group, name, axes)[...]
            return array

    def _sized(self, group: h5py.Group, name: str, axes: int) -> h5py.Dataset:
        """Return a data set of which the first one or two `axes` are the films and the findings of its group."""
        dataset = group[name]
        size = (len(self.image_ids),) if axes == 1 else (len(self.image_ids), len(group["finding"]))
        if dataset.shape[:axes] != size:
            raise ResultsError(
                f"{self.path.name} is damaged: {name} in {group.name} is of another size than its films and findings"
            )
        return dataset

    # -----------------------------------------------------------------------------------------------------------------
    # Maps

    def maps(self, method: str, model: str | None = None, *, image: str, finding: str) -> FloatArray:
        """Return the map ``(h, w)`` of one film and finding, raw.

        Parameters
        ----------
        method, model
            Whose map.
        image
            The film's image_id.
        finding
            The finding that was explained.

        Raises
        ------
        UsageError
            If there is no such map.
        """
        slug, row = self.model(model), self.row(image)
        group = self._maps(slug, method)
        if self._is_ragged(group):
            return self._ragged_map(slug, method, image, finding)
        names = self.findings(slug, method)
        if finding not in names:
            raise UsageError(f"{method} on {slug} has no finding {finding!r}; it has {', '.join(names)}")
        k = names.index(finding)
        with self._reading():
            if not group["present"][row, k]:
                raise UsageError(f"{method} on {slug} has no map of {finding!r} on film {image}")
            values: FloatArray = group["values"][row, k]
            return values

    def maps_of(
        self, model: str | None, method: str, pairs: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], FloatArray]:
        """Return the maps ``(h, w)`` of some pairs (image_id, finding), in whatever layout; absent ones have no key."""
        slug = self.model(model)
        if self._is_ragged(self._maps(slug, method)):
            index = self._index(slug, method)
            return {pair: self._ragged_map(slug, method, *pair) for pair in pairs if pair in index}
        columns = {name: k for k, name in enumerate(self.findings(slug, method))}
        present = self.present(slug, method)
        there = [(i, f) for i, f in pairs if i in self._row and f in columns and present[self._row[i], columns[f]]]
        rows = sorted({self._row[image] for image, _ in there})
        place = {row: n for n, row in enumerate(rows)}
        values = self.values(slug, method, rows)
        return {(image, name): values[place[self._row[image]], columns[name]] for image, name in there}

    def values(self, model: str | None, method: str, rows: slice | Sequence[int] | NDArray[Any]) -> FloatArray:
        """Return the maps ``(n, K, h, w)`` of some films, in the order asked for; NaN where absent."""
        return self._rows(self._dense(model, method), "values", rows)

    def present(self, model: str | None, method: str) -> NDArray[np.bool_]:
        """Return which maps there are, ``(N, K)``."""
        slug = self.model(model)
        group = self._maps(slug, method)
        if not self._is_ragged(group):
            return self._array(group, "present").astype(np.bool_)
        columns = {name: k for k, name in enumerate(self.findings(slug, method))}
        present = np.zeros((len(self.image_ids), len(columns)), dtype=np.bool_)
        for image, finding in self._index(slug, method):
            present[self.row(image), columns[finding]] = True
        return present

    def scores(self, model: str | None, method: str) -> FloatArray:
        """Return the logits that were explained, ``(N, K)``; NaN where there is no map."""
        return self._array(self._dense(model, method), "score")

    def extras(self, model: str | None, method: str) -> list[str]:
        """Return the names of what the method kept beside its maps."""
        group = self._maps(self.model(model), method)
        with self._reading():
            return [] if self._is_ragged(group) else [name for name in group["extras"] if _is_extra(group, name)]

    def extra(
        self, model: str | None, method: str, name: str, rows: slice | Sequence[int] | NDArray[Any] = slice(None)
    ) -> NDArray[Any]:
        """Return what the method kept beside its maps, ``(N, K, ...)``.

        Parameters
        ----------
        model, method
            Who kept it.
        name
            One of :meth:`extras`.
        rows
            Rows of the films, ``(n,)``; all where it is left out.
        """
        if name not in self.extras(model, method):
            kept = ", ".join(self.extras(model, method)) or "nothing"
            raise UsageError(f"{method} kept no {name!r}; it kept {kept}")
        return self._rows(self._dense(model, method)["extras"], name, rows)

    def _rows(self, group: h5py.Group, name: str, rows: slice | Sequence[int] | NDArray[Any]) -> NDArray[Any]:
        with self._reading():
            dataset = self._sized(group, name, 1)
        wanted = np.arange(len(self.image_ids))[rows if isinstance(rows, slice) else np.asarray(rows, dtype=np.intp)]
        unique, inverse = np.unique(wanted, return_inverse=True)
        if len(unique) == 0:
            return np.empty((0, *dataset.shape[1:]), dataset.dtype)
        with self._reading():
            span = int(unique[-1]) - int(unique[0]) + 1
            # h5py picks single rows slowly: one contiguous read where at least every fourth row is wanted.
            if span <= 4 * len(unique):
                values: NDArray[Any] = dataset[int(unique[0]) : int(unique[-1]) + 1][unique - unique[0]]
            else:
                values = dataset[unique]
        return values[inverse]

    def _maps(self, slug: str, method: str) -> h5py.Group:
        with self._reading():
            maps = self._file["maps"]
            there = list(maps[slug]) if slug in maps else []
            if method in there:
                return maps[slug][method]
        held = ", ".join(there) or "none"
        raise UsageError(f"{self.path.name} holds no maps of {method} on {slug}; it holds {held}")

    def _dense(self, model: str | None, method: str) -> h5py.Group:
        group = self._maps(self.model(model), method)
        if self._is_ragged(group):
            raise UsageError(f"the maps of {method} were imported, each in its own size", "take them one by one")
        return group

    def _is_ragged(self, group: h5py.Group) -> bool:
        with self._reading():
            return bool(group.attrs.get("layout", "") == RAGGED)

    def _index(self, slug: str, method: str) -> dict[tuple[str, str], tuple[int, tuple[int, int]]]:
        if (slug, method) not in self._ragged:
            with self._reading():
                rows = index_ragged(self._maps(slug, method))
            self._ragged[slug, method] = {key: (start, shape) for key, start, shape in rows}
        return self._ragged[slug, method]

    def _ragged_map(self, slug: str, method: str, image: str, finding: str) -> FloatArray:
        index = self._index(slug, method)
        if (image, finding) not in index:
            raise UsageError(f"{method} on {slug} has no map of {finding!r} on film {image}")
        start, shape = index[image, finding]
        with self._reading():
            values: FloatArray = self._maps(slug, method)["values"][start : start + shape[0] * shape[1]]
            return values.reshape(shape)

    # -----------------------------------------------------------------------------------------------------------------
    # The films themselves

    def links(self) -> list[Link]:
        """Return the rows of the link table beside the file; none where it is missing."""
        return read_private(private_path(self.path))

    def private(self) -> pd.DataFrame | None:
        """Return the films' rows of the link table beside the file, or None where it is missing."""
        import pandas as pd

        if not private_path(self.path).exists():
            return None
        names = ("image_id", "relative", "path", "member", "uid", "patient", "size", "mtime_ns")
        rows = [row for row in self.links() if row.kind == "film"]
        return pd.DataFrame([{name: getattr(row, name) for name in names} for row in rows], columns=list(names))

    def model_sources(self) -> dict[str, dict[str, str]]:
        """Return model slug to what it was loaded from, ``{"name": ..., "weights": ...}``, where the table tells."""
        rows = [row for row in self.links() if row.kind == "model"]
        return {row.image_id: {"name": row.relative, "weights": row.path} for row in rows}

    def paths(self, images_dir: str | Path | None = None) -> dict[str, tuple[Path, str]]:
        """Return image_id to where the film is now: (file, member of the archive or ``""``).

        Parameters
        ----------
        images_dir
            Folder to look for films by their sha256; None: the link table tells.

        Raises
        ------
        UsageError
            If there is no link table and no `images_dir`.
        """
        with self._reading():
            sha256 = dict(zip(self.image_ids, texts(self._file["images/sha256"]), strict=True))
        rows = [row for row in self.links() if row.kind == "film"]
        if not rows and images_dir is None:
            raise UsageError(
                f"{private_path(self.path).name} is missing, so the films of {self.path.name} cannot be found",
                "name the folder they are in with --images DIR; they are recognised by their content",
            )
        return locate(sha256, rows, Path(images_dir) if images_dir is not None else None)


def _is_extra(group: h5py.Group, name: str) -> bool:
    return bool(group["extras"][name].ndim >= 2)  # the others are bare dimensions

"""Get the films behind the results again: pictures for overlays and reports, tensors for metrics that run the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from cxrx.compare.corpus import Corpus, ModelData
from cxrx.engine.source import decoded
from cxrx.errors import UsageError
from cxrx.metrics.geometry import Float
from cxrx.reading.options import ReadOptions
from cxrx.reading.pool import cores
from cxrx.reading.prepare import Prepared
from cxrx.reading.readers import read_films
from cxrx.results.locate import Place, stored_items
from cxrx.results.reader import Results
from cxrx.specs import Film, InputSpec

_VIEWS = ("frontal", "lateral", "oblique", "unknown")
_AHEAD = 32  # decoded films that may wait
EDGE_GRID = 224

Paths = Mapping[str, Place]
"""image_id to where its film is."""

_FOUND: WeakKeyDictionary[Corpus, dict[Path | None, dict[str, Place]]] = WeakKeyDictionary()


def film_paths(corpus: Corpus, images: Path | None = None) -> dict[str, Place]:
    """Return where the films of all files are now; with `images` they are looked for there, by their content.

    A film that several files tell of is taken from where it still is. The search is made once a corpus: it reads every
    file in `images`.
    """
    known = _FOUND.setdefault(corpus, {})
    if images not in known:
        paths = known[images] = {}
        for results in corpus.files:
            if images is not None or results.links():
                for image_id, place in results.paths(images).items():
                    if image_id not in paths or not paths[image_id][0].exists():
                        paths[image_id] = place
    return known[images]


def results_of(corpus: Corpus, slug: str) -> Results:
    """Return the first file with predictions of a model.

    Raises
    ------
    UsageError
        Its maps were imported, and there is none.
    """
    for results in corpus.files:
        if slug in results.models() and results.attrs(slug):
            return results
    raise UsageError("its maps were imported, and no model came with them")


def check_within_reach(corpus: Corpus, data: ModelData, images: Path | None = None, *, given: bool = False) -> None:
    """Check that a model and its films are still there, as far as can be told without loading the model.

    Parameters
    ----------
    corpus, data
        The open results, and the model.
    images
        Folder of moved films.
    given
        Whether the user names the model.

    Raises
    ------
    UsageError
        They are not; the sentence says what to do.
    """
    results = results_of(corpus, data.slug)
    source = results.model_sources().get(data.slug, {})
    if not given and not source.get("name") and not results.attrs(data.slug).get("model_name"):
        raise UsageError("the results do not say what the model was loaded from", "name it with --model and --weights")
    if not given and source.get("weights") and not Path(source["weights"]).exists():
        raise UsageError("its weights are no longer where they were", "name them with --model and --weights")
    paths = film_paths(corpus, images)
    if not any(image_id in paths and paths[image_id][0].exists() for image_id in data.logit):
        raise UsageError("its films cannot be found", "say where they are with --images DIR")


def read_options(settings: Mapping[str, Any] | None = None) -> ReadOptions:
    """Return options that read whatever was read before, in the way a model's `settings` say."""
    known = {field.name for field in fields(ReadOptions)} & {"polarity", "voi_index", "frame"}
    chosen = {name: settings[name] for name in known if settings and settings.get(name) is not None}
    return ReadOptions(**chosen, views=_VIEWS, force_dicom=True, non_chest=True, for_processing=True)


def read_pictures(
    paths: Paths, wanted: Iterable[str], options: ReadOptions
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield (image_id, ``(rows, columns)`` in [0, 1]), file by file; films that are gone or changed are left out."""
    for item, held in stored_items(paths, wanted):
        for film in read_films(item, options):
            if isinstance(film, Film) and film.sha256[:16] in held:
                yield film.sha256[:16], film.pixels


def prepared_films(
    paths: Paths, wanted: Iterable[str], spec: InputSpec, options: ReadOptions
) -> Iterator[tuple[str, Prepared]]:
    """Decode films onto a model's input grid, in worker processes; films that are gone or changed are left out.

    Parameters
    ----------
    paths
        Where the films are.
    wanted
        image_ids.
    spec, options
        What the model expects to see, and how the files are read.
    """
    ids = set(wanted)
    items = (item for item, _ in stored_items(paths, sorted(ids)))
    with decoded(items, spec, options, min(cores(), len(ids)), _AHEAD) as films:
        for _, results in films:
            for result in results:
                if isinstance(result, Prepared) and result.image_id in ids:
                    yield result.image_id, result


def film_edges(corpus: Corpus, wanted: Iterable[str], images: Path | None = None) -> dict[str, Float]:
    """Return the edge strength of films, image_id to ``(224, 224)`` over the whole film: the control ``edge``.

    Sobel magnitude of the film stretched to that grid. It sees the picture but never the model (Adebayo et al. 2018).
    """
    from scipy.ndimage import sobel

    settings = next((model.settings for model in corpus.models.values() if model.settings), {})
    spec = InputSpec(size=(EDGE_GRID, EDGE_GRID), fit="stretch", channels=1)
    films = prepared_films(film_paths(corpus, images), wanted, spec, read_options(settings))
    return {
        image_id: np.hypot(*(sobel(film.pixels.astype(np.float64), axis, mode="nearest") / 8 for axis in (0, 1)))
        for image_id, film in films
    }

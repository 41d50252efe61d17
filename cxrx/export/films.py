"""The films behind results: what an exporter and the report get their pictures, geometry and truth from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrx.compare.corpus import Corpus, ModelData
from cxrx.compare.films import film_paths, read_options, read_pictures
from cxrx.datasets import canonical
from cxrx.metrics.geometry import Float

LABELS: dict[int | None, str] = {1: "present", 0: "absent", -1: "uncertain"}


class Films:
    """Pictures, maps on their pixels, geometry and truth, by image_id; pixels are those of the source film.

    Where the results hold one model, it need not be named.

    Attributes
    ----------
    ids
        The films that have a picture in the results, those that were skipped or failed left out.

    Parameters
    ----------
    corpus
        The open results.
    images
        Folder of moved films; they are found by their content.
    share
        Call films by their image_id, not by their file name.
    """

    def __init__(self, corpus: Corpus, images: Path | None = None, *, share: bool = False) -> None:
        self.corpus, self._images, self._share = corpus, images, share
        self.ids = list(corpus.films)

    def name(self, image_id: str) -> str:
        """Return the film's relative path, or its id where that is not known or not to be shown."""
        return image_id if self._share else self.corpus.name(image_id)

    def pictures(self, ids: Iterable[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield (image_id, ``(rows, columns)`` in [0, 1]) file by file; films that are gone or changed are left out."""
        paths = film_paths(self.corpus, self._images)
        there = sorted(set(ids) & paths.keys(), key=lambda image_id: (paths[image_id], image_id))
        options = read_options(next((one.settings for one in self.corpus.models.values() if one.settings), {}))
        for image_id, pixels in read_pictures(paths, there, options):
            if pixels.shape == self.shape(image_id):
                yield image_id, pixels

    def picture(self, image_id: str) -> NDArray[np.float32] | None:
        """Return one film, ``(rows, columns)`` in [0, 1]; None where it is gone or changed."""
        return next((pixels for _, pixels in self.pictures([image_id])), None)

    def shape(self, image_id: str) -> tuple[int, int]:
        """Return the film's (rows, columns)."""
        film = self.corpus.films[image_id]
        return film.rows, film.columns

    def affine(self, image_id: str, model: str | None = None) -> Float:
        """Return ``(2, 3)``: (x, y) on the model's input grid to source pixels, pixel centres at integers."""
        return self._model(model).window(self.corpus.films[image_id])[0]

    def map(
        self, image_id: str, finding: str, method: str, model: str | None = None, shape: tuple[int, int] | None = None
    ) -> Float | None:
        """Return a map in its published form on the film's pixels; what the model did not see is 0.

        Parameters
        ----------
        image_id, finding, method, model
            Which map.
        shape
            ``(rows, columns)`` of a thumbnail to carry it to instead.

        Returns
        -------
        map
            ``(rows, columns)``, or None where there is none.
        """
        data, pair = self._model(model), (image_id, canonical(finding))
        grid = self.corpus.read(data, method, [pair]).get(pair)
        return None if grid is None else data.placed(grid, self.corpus.films[image_id], shape)

    def label(self, image_id: str, finding: str) -> int | None:
        """Return 1 (present), 0 (absent) or -1 (uncertain); None where nothing is known."""
        return self.corpus.labels.get(image_id, {}).get(canonical(finding))

    def boxes(self, image_id: str, finding: str) -> Float:
        """Return the truth's boxes ``(n, 4)``, x, y, width, height; of a mask without boxes the box around it."""
        pair = (image_id, canonical(finding))
        ys, xs = np.nonzero(self.corpus.masks[pair].decode()) if pair in self.corpus.masks else np.zeros((2, 0), int)
        around = [[xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]] if ys.size else np.zeros((0, 4))
        return np.asarray(self.corpus.boxes.get(pair, around), dtype=np.float64)

    def mask(self, image_id: str, finding: str) -> NDArray[np.bool_] | None:
        """Return the truth's mask, ``(rows, columns)``; None where there is none."""
        mask = self.corpus.masks.get((image_id, canonical(finding)))
        return None if mask is None else mask.decode()

    def _model(self, name: str | None) -> ModelData:
        known = self.corpus.models
        return known[name] if name in known else known[self.corpus.files[0].model(name)]

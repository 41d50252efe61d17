"""A model of the results loaded again, with the films it saw: for metrics that must run it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cxrx.compare.corpus import Corpus, ModelData
from cxrx.compare.films import Paths, check_within_reach, film_paths, prepared_films, read_options, results_of
from cxrx.compare.notes import Notes
from cxrx.engine.api import reload_model
from cxrx.engine.batch import SAME_LOGITS
from cxrx.models.inference import auto_batch_size, predict_logits
from cxrx.models.model import Model


@dataclass(frozen=True)
class Rerun:
    """A model, and the way to its films."""

    model: Model
    data: ModelData
    paths: Paths
    notes: Notes

    def batches(self, ids: Sequence[str]) -> Iterator[tuple[list[str], torch.Tensor]]:
        """Yield films as the model sees them: image_ids, and ``(b, C, H, W)``.

        A film that cannot be found, or whose logits are not those that are stored, is left out and told.
        """
        size = auto_batch_size(self.model.device)
        options = read_options(self.data.settings)
        waiting: list[tuple[str, np.ndarray]] = []
        found = 0
        for image_id, film in prepared_films(self.paths, ids, self.model.input, options):
            found += 1
            waiting.append((image_id, film.pixels))
            if len(waiting) == size:
                yield from self._checked(waiting, size)
                waiting = []
        if waiting:
            yield from self._checked(waiting, size)
        if found < len(ids):
            self.notes.warn(
                f"{len(ids) - found} of {len(ids)} films that {self.data.slug} should see again were not found"
            )

    def _checked(self, films: Sequence[tuple[str, np.ndarray]], size: int) -> Iterator[tuple[list[str], torch.Tensor]]:
        x = self.model.prepare(torch.from_numpy(np.stack([pixels for _, pixels in films])))
        dtype = self.data.settings.get("dtype", "fp32")
        logits = predict_logits(self.model, x, size, dtype).numpy()
        same = [
            i for i, (image_id, _) in enumerate(films)
            if np.abs(logits[i] - self.data.logit[image_id]).max() <= SAME_LOGITS[dtype]
        ]  # fmt: skip
        for _ in range(len(films) - len(same)):
            self.notes.count(f"{{n}} films do not give {self.data.slug} the logits that are stored: left out")
        if same:
            yield [films[i][0] for i in same], x[same]


def load_again(
    corpus: Corpus,
    slug: str,
    notes: Notes,
    *,
    given: Model | None = None,
    device: str = "auto",
    images: Path | None = None,
) -> Rerun:
    """Load the model `slug` of the results again, and find its films.

    Parameters
    ----------
    given
        The model `slug` itself, where the user names it.
    device
        Where it runs, if it is not given.
    images
        Folder of moved films.

    Raises
    ------
    UsageError
        The model or its films cannot be found; the sentence says what to do.
    """
    check_within_reach(corpus, corpus.models[slug], images, given=given is not None)
    model = given or reload_model(results_of(corpus, slug), slug, device)
    return Rerun(model, corpus.models[slug], film_paths(corpus, images), notes)

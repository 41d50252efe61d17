"""Does the model read a region? The film again, with the region painted over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxrx.compare.corpus import Corpus, Pair
from cxrx.compare.regions.mass import Regions, summarise_regions
from cxrx.compare.rerun import Rerun
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.geometry import Mask
from cxrx.models.inference import predict_logits
from cxrx.results.truth import Mask as RunLengths

METRICS = ("drop", "drop_mirror")
RING = 3  # pixels of the model's input around a region that its paint is mixed from
LARGEST = 0.05  # of the picture: painting over more than that leaves another film


def removal(
    rerun: Rerun, corpus: Corpus, regions: Regions, pairs: Sequence[Pair], bootstrap: PatientBootstrap
) -> pd.DataFrame:
    """Return by how much the log-odds of a finding drops when a region is painted over, and when its mirror image is.

    Regions of more than a twentieth of the picture (the lungs) are left out. The rows have no method: the model alone
    is asked.

    Parameters
    ----------
    rerun
        The model, loaded again.
    corpus, regions
        The open results, and the regions of their films.
    pairs
        Explained pairs of film and finding.
    bootstrap
        What draws patients.
    """
    data = rerun.data
    by_film: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_film.setdefault(pair[0], []).append(pair)
    small = {
        image_id: [(region, mask) for region, mask in regions[image_id].items() if _share(mask) <= LARGEST]
        for image_id in by_film if image_id in regions
    }  # fmt: skip
    rows = []
    for ids, x in rerun.batches([image_id for image_id, marked in small.items() if marked]):
        for image_id, picture in zip(ids, x, strict=True):
            for region, mask in small[image_id]:
                size = (picture.shape[1], picture.shape[2])
                place = on_input(mask.decode(), data.affine[image_id], size)
                if not place.any():
                    continue  # the crop cut it off
                films = torch.stack([picture, painted(picture, place), painted(picture, place[:, ::-1])])
                logits = predict_logits(rerun.model.explaining("log-odds"), films, len(films)).numpy()  # (3, K)
                for pair in by_film[image_id]:
                    z = logits[:, data.findings.index(pair[1])]
                    scores = {"drop": float(z[0] - z[1]), "drop_mirror": float(z[0] - z[2])}
                    rows.append((data.slug, "", region, pair, scores))
    return summarise_regions(corpus, rows, METRICS, bootstrap)


def _share(mask: RunLengths) -> float:
    """Return how much of the picture a mask covers; every second run is of pixels in it."""
    return float(mask.runs[1::2].sum() / mask.runs.sum())


def on_input(mask: Mask, affine: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """Carry a mask of the film to the model's input, ``(H, W)``, a pixel wider on every side."""
    from scipy.ndimage import binary_dilation

    x = np.rint(affine[0, 0] * np.arange(size[1]) + affine[0, 2]).astype(int)
    y = np.rint(affine[1, 1] * np.arange(size[0]) + affine[1, 2]).astype(int)
    inside = np.logical_and.outer((y >= 0) & (y < mask.shape[0]), (x >= 0) & (x < mask.shape[1]))
    place = mask[np.clip(y, 0, mask.shape[0] - 1)][:, np.clip(x, 0, mask.shape[1] - 1)] & inside
    wider: Mask = binary_dilation(place)
    return wider


def painted(picture: torch.Tensor, place: Mask) -> torch.Tensor:
    """Return a picture ``(C, H, W)`` with `place` ``(H, W)`` filled by the mean of a ring of 3 pixels around it."""
    from scipy.ndimage import binary_dilation

    ring = torch.from_numpy(binary_dilation(place, iterations=RING) & ~place).to(picture.device)
    inside = torch.from_numpy(np.ascontiguousarray(place)).to(picture.device)
    filled = picture.clone()
    filled[:, inside] = picture[:, ring].mean(dim=1, keepdim=True)
    return filled

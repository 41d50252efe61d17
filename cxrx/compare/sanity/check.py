"""All sanity tests of one method on one model: what of its maps changes when the network, the seed or the film does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.compare.sanity.experiment import Experiment
from cxrx.compare.sanity.randomise import randomisation
from cxrx.compare.sanity.robustness import max_sensitivity, noisy, reseeded
from cxrx.compare.selection import TESTS
from cxrx.errors import UsageError
from cxrx.explainers.seeds import derive_seed
from cxrx.metrics.similarity import COLUMNS, compare_maps, map_entropy, prepare, random_pairs, rows_of
from cxrx.models.stages import Stage, stages

Float = NDArray[np.float64]


@dataclass(frozen=True)
class SanityResult:
    """What the tests of one method on one model measured.

    Attributes
    ----------
    rows
        A row for each test, stage, metric, film, finding and draw; columns ``test stage metric value image_id patient
        finding draw``. Tests: ``randomisation`` (a stage each, the one at the output first), ``repeatability``,
        ``noise``, ``sensitivity`` (metric ``max_sensitivity``) and ``entropy`` (metric ``entropy_rise``).
    random_pairs
        The same columns: how alike the maps of different patients are.
    stages
        Names, the one at the output first; after the last the whole network is random.
    stochastic
        Whether the method depends on a seed. If not, there are no rows of ``repeatability``.
    """

    rows: pd.DataFrame
    random_pairs: pd.DataFrame
    stages: tuple[str, ...]
    stochastic: bool


def check_sanity(
    experiment: Experiment,
    *,
    tests: Sequence[str] = TESTS,
    draws: int = 3,
    every_stage: bool = True,
    seed: int = 0,
) -> SanityResult:
    """Test one method on one model.

    Every pair of film and finding is explained ``stages * draws`` times for the randomisation, `draws` times for the
    repeatability (of stochastic methods) and for the noise, and 11 times for the max-sensitivity.

    Parameters
    ----------
    experiment
        The method, the model, and the pictures.
    tests
        Some of randomisation, repeatability, noise, sensitivity.
    draws
        Random networks, other seeds, noisy copies, and partners of each map in the random pairs.
    every_stage
        False: only the wholly random network, for methods that take long.
    seed
        Of the random networks and of the random pairs.

    Raises
    ------
    UsageError
        An unknown test.
    """
    unknown = [test for test in tests if test not in TESTS]
    if unknown:
        raise UsageError(f"there is no sanity test {unknown[0]!r}", f"known: {', '.join(TESTS)}")
    pairs, stochastic = experiment.pairs(), experiment.spec.stochastic
    values = experiment.maps()
    originals = prepare(values)
    cascade = stages(experiment.model.module, experiment.x[:1].to(experiment.model.dtype))
    tables = []
    if "randomisation" in tests:
        tables += _randomised(experiment, values, cascade if every_stage else [_joined(cascade)], draws, seed)
    for draw in range(draws):
        if "repeatability" in tests and stochastic:
            tables += rows_of(pairs, "repeatability", reseeded(experiment, originals, draw), draw)
        if "noise" in tests:
            tables += rows_of(pairs, "noise", noisy(experiment, originals, draw), draw)
    if "sensitivity" in tests:
        tables += rows_of(pairs, "sensitivity", {"max_sensitivity": max_sensitivity(experiment)})
    return SanityResult(
        rows=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS)),
        random_pairs=random_pairs(originals, pairs, seed, draws),
        stages=tuple(stage.name for stage in cascade),
        stochastic=stochastic,
    )


def _randomised(
    experiment: Experiment, values: NDArray[np.floating], cascade: Sequence[Stage], draws: int, seed: int
) -> list[pd.DataFrame]:
    """Return how alike the maps ``(n, h, w)`` stay while the stages of `cascade` become random, one after the other."""
    pairs, originals, entropy = experiment.pairs(), prepare(values), _entropies(values)
    tables = []
    for draw in range(draws):
        with randomisation(experiment.model.module) as randomise:
            for stage in cascade:
                randomise(stage, derive_seed(seed, "randomisation", draw))
                changed = experiment.maps()
                tables += rows_of(pairs, "randomisation", compare_maps(originals, prepare(changed)), draw, stage.name)
        after = _entropies(changed)
        rise = np.divide(after - entropy, entropy, out=np.full(len(entropy), np.nan), where=(entropy > 0) & (after > 0))
        tables += rows_of(pairs, "entropy", {"entropy_rise": rise}, draw)
    return tables


def _joined(cascade: Sequence[Stage]) -> Stage:
    """Return all stages as one, under the name of the last."""
    layers = tuple(layer for stage in cascade for layer in stage.layers)
    return Stage(cascade[-1].name, layers, tuple(name for stage in cascade for name in stage.parameters))


def _entropies(maps: NDArray[np.floating]) -> Float:
    return np.array([map_entropy(values) for values in maps])

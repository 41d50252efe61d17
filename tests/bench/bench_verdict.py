"""How often the verdicts are wrong where the truth is known, by simulation.

    python tests/bench/bench_verdict.py sanity [--runs 400]

``sanity``: of a method whose maps, once the network is random, are as like the original as strangers' maps are, how
often the randomisation fails it, passes it, and leaves it open; and the same for methods that differ from that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd

from cxrx.compare.sanity.judge import MARGIN, judge
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.similarity import COLUMNS, SIMILARITIES

SPREAD, DRAWS = 0.2, 3
"""Standard deviation of a likeness, half of it between patients where they have several films; random networks."""


def sanity(runs: int) -> None:
    """Print what the randomisation test says of a method, by how much more alike its maps stay than strangers'."""
    print(
        "| patients | films each | correlation | more alike by | fails | passes | open |\n|---|---|---|---|---|---|---|"
    )
    cases = [(n, 1, rho, 0.0) for n in (10, 15, 30) for rho in (0.0, 0.3, 0.6, 0.9)]
    cases += [(n, 2, 0.5, 0.0) for n in (10, 15, 30)]
    cases += [(n, 1, 0.5, shift) for n in (10, 15, 30) for shift in (-0.2, MARGIN, 0.1, 0.3, 0.6)]
    for n, films, rho, shift in cases:
        rng = np.random.default_rng([n, films, round(100 * rho), round(100 * abs(shift)), shift < 0])
        found = [_randomisation(rng, n, films, rho, shift) for _ in range(runs)]
        shares = (sum(one is passed for one in found) / runs for passed in (False, True, None))
        print(f"| {n} | {films} | {rho} | {shift:+} |", *(f"{share:.3f} |" for share in shares), flush=True)


def _randomisation(rng: np.random.Generator, n: int, films: int, rho: float, shift: float) -> bool | None:
    patients = [f"p{i}" for i in range(n)]
    rows = _likeness(rng, patients, films, rho, 0.2 + shift).assign(test="randomisation", stage="all")
    strangers = _likeness(rng, patients, films, rho, 0.2).assign(test="random_pairs", stage="")
    ((_, passed, *_),) = judge(rows[list(COLUMNS)], strangers[list(COLUMNS)], PatientBootstrap(patients, 10, 0))
    return passed


def _likeness(rng: np.random.Generator, patients: list[str], films: int, rho: float, mean: float) -> pd.DataFrame:
    """Draw likenesses whose metrics are correlated by `rho`."""

    def noise(*shape: int) -> np.ndarray:
        common, own = rng.standard_normal((*shape, 1)), rng.standard_normal((*shape, len(SIMILARITIES)))
        return np.sqrt(rho) * common + np.sqrt(1 - rho) * own

    n, between = len(patients), 0.5 if films > 1 else 0.0
    parts = noise(n, films, DRAWS), noise(n, 1, 1)
    values = mean + SPREAD * (np.sqrt(1 - between) * parts[0] + np.sqrt(between) * parts[1])
    i, film, draw, m = (index.ravel() for index in np.indices(values.shape))
    table = {
        "metric": np.array(SIMILARITIES)[m],
        "value": values.ravel(),
        "patient": np.array(patients)[i],
        "draw": draw,
    }
    return pd.DataFrame(table | {"image_id": [f"{a}/{b}" for a, b in zip(i, film, strict=True)], "finding": "f"})


PARTS: dict[str, Callable[[int], None]] = {"sanity": sanity}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--runs", type=int, default=400)
    given = parser.parse_args()
    for part in given.parts:
        PARTS[part](given.runs)


if __name__ == "__main__":
    main()

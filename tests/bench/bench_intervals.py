"""Simulate what the intervals cover, and how often the tests decide where there is nothing to decide.

    python tests/bench/bench_intervals.py [--runs 1000] [--seed 0] [intervals] [decisions] [areas]

Films of a patient share an effect (`rho`); a film has each finding with probability `prevalence`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from cxrx.metrics.bootstrap import MIN_PATIENTS, PatientBootstrap
from cxrx.metrics.classification import classify
from cxrx.metrics.paired import paired_tests

Float = NDArray[np.float64]


class Setting(NamedTuple):
    """One line of the table."""

    patients: int
    films: float  # a patient has 1 + Poisson(films)
    findings: int
    rate: float | None = None  # of hits; None: continuous scores
    prevalence: float = 1.0
    rho: float = 0.5


INTERVALS = (
    Setting(10, 0, 1), Setting(20, 1, 1), Setting(50, 1, 1), Setting(15, 1, 5, prevalence=0.3),
    Setting(60, 1, 14, prevalence=0.2), Setting(30, 1, 20, prevalence=0.08), Setting(25, 1, 3, prevalence=0.5, rho=0.9),
    Setting(15, 0, 1, 0.05), Setting(27, 0, 1, 0.05), Setting(30, 1, 1, 0.2), Setting(60, 1, 1, 0.05),
    Setting(15, 1, 5, 0.1, 0.3), Setting(60, 1, 8, 0.3, 0.2), Setting(30, 1, 20, 0.3, 0.08), Setting(12, 0, 1, 0.9),
    Setting(40, 3, 1, 0.03, rho=0.9), Setting(20, 1, 4, 0.97, 0.5), Setting(18, 0, 1, 0.5),
)  # fmt: skip


def draw(rng: np.random.Generator, setting: Setting) -> tuple[Float, list[str], list[str], float]:
    """Return values of film and finding, their patients and findings, and the true mean over the findings seen."""
    films = 1 + rng.poisson(setting.films, setting.patients)
    patient = np.repeat(np.arange(setting.patients), films)
    film, finding = np.nonzero(rng.random((len(patient), setting.findings)) < setting.prevalence)
    own = patient[film]
    if setting.rate is None:
        means = np.linspace(0.2, 0.8, setting.findings)
        effect = setting.rho * rng.normal(size=setting.patients)
        values = means[finding] + 0.15 * (effect[own] + rng.normal(size=len(film)))
    else:
        means = np.full(setting.findings, setting.rate)
        shared = np.where(rng.random(len(film)) < setting.rho, rng.random(setting.patients)[own], rng.random(len(film)))
        values = (shared < means[finding]).astype(float)
    truth = float(means[np.unique(finding)].mean())
    return values, [f"p{i}" for i in own], [f"f{k:02d}" for k in finding], truth


def intervals(runs: int, seed: int) -> Iterator[str]:
    """Yield how often the interval holds the true mean, how wide it is, and how often it has no width."""
    yield "| patients | films each | findings | score | prevalence | rho | covers | width | width 0 |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for line, setting in enumerate(INTERVALS):
        rng = np.random.default_rng([seed, line])
        found = []
        for _ in range(runs):
            values, patients, findings, truth = draw(rng, setting)
            if len(set(patients)) >= MIN_PATIENTS:
                table = PatientBootstrap(patients, 1, 0).table(values[:, None], patients, findings)
                found.append((table.low[0, 0] <= truth <= table.high[0, 0], table.high[0, 0] - table.low[0, 0]))
        covers, width = np.array(found).T
        score = "continuous" if setting.rate is None else f"hits, {setting.rate}"
        yield (
            f"| {setting.patients} | {1 + setting.films} | {setting.findings} | {score} | {setting.prevalence} | "
            f"{setting.rho} | {covers.mean():.3f} | {width.mean():.2f} | {(width == 0).mean():.0%} |"
        )


def exchangeable(rng: np.random.Generator, setting: Setting, methods: int) -> pd.DataFrame:
    """Return scores of methods none of which is better: a film is easy or hard for all of them."""
    rows = []
    base, patients, findings, _ = draw(rng, setting._replace(rate=None))
    limit = np.quantile(base, setting.rate or 0)
    for method in range(methods):
        values = base + 0.15 * rng.normal(size=len(base))
        if setting.rate is not None:
            values = (values < limit).astype(float)
        rows += [
            {"image_id": str(i), "patient": p, "finding": k, "model": "m", "method": f"m{method}", "score": value}
            for i, (p, k, value) in enumerate(zip(patients, findings, values.tolist(), strict=True))
        ]
    return pd.DataFrame(rows)


def decisions(runs: int, seed: int) -> Iterator[str]:
    """Yield how often at least one difference is decided among methods that do not differ."""
    yield "| methods | patients | findings | score | any mean over findings decided | any single finding decided |"
    yield "|---|---|---|---|---|---|"
    settings = [(2, Setting(n, 1, k, rate, 1.0 if k == 1 else 0.3))
                for rate in (None, 0.1, 0.4) for k in (1, 5) for n in (12, 30, 80)]  # fmt: skip
    settings += [(6, Setting(60, 1, 20, rate, 0.2)) for rate in (None, 0.3)]
    for line, (methods, setting) in enumerate(settings):
        rng = np.random.default_rng([seed, 1, line])
        wrong = np.zeros(2)
        times = runs if methods == 2 else max(1, runs // 5)
        for _ in range(times):
            scores = exchangeable(rng, setting, methods)
            tests = paired_tests(scores, ["score"], set(), PatientBootstrap(list(scores["patient"]), 1, 0))
            overall = tests["finding"] == "all"
            wrong += tests["decided"][overall].any(), tests["decided"][~overall].any()
        score = "continuous" if setting.rate is None else f"hits, {setting.rate}"
        means, single = wrong / times
        yield f"| {methods} | {setting.patients} | {setting.findings} | {score} | {means:.3f} | {single:.3f} |"


def areas(runs: int, seed: int) -> Iterator[str]:
    """Yield what the intervals of AUROC cover, for two normal distributions."""
    yield "| films, one a patient | positive | true AUROC | covers | width | width 0 |"
    yield "|---|---|---|---|---|---|"
    for line, (n, share, area) in enumerate(
        [(15, 0.4, 0.8), (20, 0.5, 0.95), (40, 0.1, 0.8), (40, 0.5, 0.99), (100, 0.05, 0.8), (60, 0.3, 0.9)]
    ):
        rng = np.random.default_rng([seed, 2, line])
        found = []
        patients = [str(i) for i in range(n)]
        for run in range(max(1, runs // 5)):
            y = (rng.random(n) < share).astype(int)
            if 2 <= y.sum() <= n - 2:
                p = norm.cdf(rng.normal(size=n) + np.sqrt(2) * norm.ppf(area) * y)
                bootstrap = PatientBootstrap(patients, 400, run)
                row = classify(y[:, None], p[:, None], ["f"], patients=patients, bootstrap=bootstrap)[0]
                found.append((row["auroc_low"] <= area <= row["auroc_high"], row["auroc_high"] - row["auroc_low"]))
        covers, width = np.array(found).T
        yield f"| {n} | {share} | {area} | {covers.mean():.3f} | {width.mean():.2f} | {(width == 0).mean():.0%} |"


PARTS = {"intervals": intervals, "decisions": decisions, "areas": areas}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which; all where none is named")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(argv)
    for name in chosen.parts or PARTS:
        print(f"\n{name}\n")
        for line in PARTS[name](chosen.runs, chosen.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()

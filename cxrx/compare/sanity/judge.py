"""From the rows of the sanity tests to intervals and to verdicts in words. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrx.metrics.bootstrap import MIN_PATIENTS, PatientBootstrap
from cxrx.metrics.paired import LEVEL
from cxrx.metrics.similarity import SIMILARITIES

Float = NDArray[np.float64]

SUMMARY = ("test", "stage", "metric", "value", "low", "high", "n", "random_pair")
MARGIN = 0.02
"""A map counts as no more alike than a stranger's where the interval of the difference ends below this."""
UNCHANGED = 1 - 1e-6

CONVENTION = (
    "how alike a map stays once the whole network is random, less how alike maps of the same finding on different "
    "patients are, averaged by patient, with the interval of Student's t: a method passes if the 95 % interval ends "
    f"below {MARGIN} for all of rank correlation, SSIM and top-10 % IoU (since all must, none needs a correction), "
    "fails if that of any lies above 0 once corrected for three (Bonferroni: 98.3 %), and is else left open; it passes "
    f"the reseeding and the noise if all three 95 % intervals lie above 0, and fails if any ends below {MARGIN} once "
    f"corrected; under {MIN_PATIENTS} patients all that is reported is whether a map changes"
)

_NAMES = {"spearman": "rank correlation", "ssim": "SSIM", "iou_top_10": "top-10 % IoU"}

_Judged = tuple[bool | None, str, str]  # passed, outcome, reason
_Side = Literal["below", "above", "open"]


def summarise(rows: pd.DataFrame, random: pd.DataFrame, bootstrap: PatientBootstrap) -> pd.DataFrame:
    """Return means and intervals of every test, stage and metric, in the order of the rows.

    Parameters
    ----------
    rows, random
        Of :class:`cxrx.compare.sanity.check.SanityResult`.
    bootstrap
        Over patients; draws of one pair are averaged before.

    Returns
    -------
    summary
        Columns ``test stage metric value low high n random_pair``: `n` pairs with a value, `random_pair` the mean
        similarity of maps of different patients, NaN for what is no similarity.
    """
    lines = {metric: per_pair(random, metric)["value"].mean() for metric in SIMILARITIES}
    found = []
    for key, part in rows.groupby(["test", "stage", "metric"], sort=False):
        test, stage, metric = (str(name) for name in key)
        pairs = per_pair(part, metric)
        values = pairs["value"].to_numpy(dtype=np.float64)
        value, low, high = bootstrap.mean(values, pairs["patient"].tolist(), "mean")
        n = int(np.isfinite(values).sum())
        found.append((test, stage, metric, value, low, high, n, lines.get(metric, np.nan)))
    return pd.DataFrame(found, columns=list(SUMMARY))


def per_pair(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the mean over draws, ``image_id patient finding value``; NaN where no draw gave a number."""
    chosen = rows[rows["metric"] == metric]
    return chosen.groupby(["image_id", "patient", "finding"], sort=False)["value"].mean().reset_index()


def judge(
    rows: pd.DataFrame, random: pd.DataFrame, bootstrap: PatientBootstrap, *, stochastic: bool = True
) -> list[tuple[str, bool | None, str, str]]:
    """Return (test, passed, outcome, reason) of the tests that `rows` hold.

    Where nothing is decided, `passed` is None and the outcome empty, or says that there is nothing to test.

    Max-sensitivity and the rise of the entropy are scores without a bound that would tell pass from fail.

    Parameters
    ----------
    rows, random, bootstrap
        As of :func:`summarise`.
    stochastic
        False: the outcome of repeatability is that the method is deterministic.
    """
    tests = set(rows["test"])
    verdicts: list[tuple[str, bool | None, str, str]] = []
    if "randomisation" in tests:
        cascade = rows[rows["test"] == "randomisation"]
        last = cascade[cascade["stage"] == cascade["stage"].iloc[-1]]
        verdicts.append(("randomisation", *_randomised(last, random, bootstrap)))
    if not stochastic:
        verdicts.append(("repeatability", True, "is deterministic", "it gives the same map whatever the seed"))
    for test, what in (("repeatability", "another seed"), ("noise", "a noisy copy of the film")):
        if test in tests:
            chosen = rows[rows["test"] == test]
            verdicts.append((test, *_repeated(what, chosen, random, bootstrap)))
    return verdicts


def sentence_of(method: str, outcome: str, reason: str) -> str:
    """Say what :func:`judge` found, without a full stop."""
    return f"{method} {outcome}: {reason}" if outcome else f"{method}: {reason}"


@dataclass(frozen=True)
class _Finding:
    """Where one metric stands against its random-pair line: by its own interval, and by one corrected for all three."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    patients: int  # with a map of a different patient to be set against
    line: float
    side: _Side
    sure: _Side

    def __str__(self) -> str:
        interval = f" [{self.low:.2f}, {self.high:.2f}]" if np.isfinite(self.low) else ""
        line = f"{self.line:.2f}" if np.isfinite(self.line) else "not known"
        return f"{_NAMES[self.metric]} {self.value:.2f}{interval}, n = {self.n}; maps of different patients: {line}"


def _against_line(rows: pd.DataFrame, random: pd.DataFrame, metric: str, bootstrap: PatientBootstrap) -> _Finding:
    """Compare with the random pairs, pair by pair."""
    own, other = per_pair(rows, metric), per_pair(random, metric)
    value, low, high = bootstrap.mean(own["value"].to_numpy(), own["patient"].tolist(), "mean")
    both = own.merge(other, on=["image_id", "patient", "finding"], suffixes=("", "_random"))
    difference = (both["value"] - both["value_random"]).groupby(both["patient"]).mean().dropna().to_numpy()
    side, sure = (_side(difference, LEVEL / tests) for tests in (1, len(SIMILARITIES)))
    n, line = int(own["value"].count()), float(other["value"].mean())
    return _Finding(metric, value, low, high, n, len(difference), line, side, sure)


def _side(differences: Float, level: float) -> _Side:
    """Return on which side of the line the patients' mean differences lie, by the t interval of this error level."""
    from scipy.stats import t

    n = len(differences)
    if n < MIN_PATIENTS:
        return "open"
    reach = t.isf(level / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    low, high = differences.mean() - reach, differences.mean() + reach
    return "below" if high < MARGIN else "above" if low > 0 else "open"


def _findings(rows: pd.DataFrame, random: pd.DataFrame, bootstrap: PatientBootstrap) -> list[_Finding]:
    return [_against_line(rows, random, metric, bootstrap) for metric in SIMILARITIES]


def _unchanged(rows: pd.DataFrame) -> bool:
    values = rows["value"].to_numpy(dtype=np.float64)
    return bool(np.isfinite(values).any()) and bool((values[np.isfinite(values)] >= UNCHANGED).all())


def _randomised(rows: pd.DataFrame, random: pd.DataFrame, bootstrap: PatientBootstrap) -> _Judged:
    blank = _blank(rows)
    if blank == _count(rows):
        return None, "cannot be tested", "of a random network all its maps are constant"
    found = _findings(rows, random, bootstrap)
    if _unchanged(rows):
        return False, "fails", f"its map does not change when the whole network is randomised ({found[0]})"
    left_out = f"; {blank} of {_count(rows)} maps became constant and are left out" if blank else ""
    others = "more like the original than maps of different patients are"
    if all(one.side == "below" for one in found):
        reason = f"once the whole network is randomised, its map is no {others} ({found[0]}{left_out})"
        return True, "passes", reason
    above = [one for one in found if one.sure == "above"]
    if above:
        reason = f"even when the whole network is randomised, its map stays {others} ({above[0]}{left_out})"
        return False, "fails", reason
    return None, "", _undecided("the randomisation", found, "below", left_out)


def _repeated(what: str, rows: pd.DataFrame, random: pd.DataFrame, bootstrap: PatientBootstrap) -> _Judged:
    blank = _blank(rows)
    if blank == _count(rows):
        return None, f"cannot be tested with {what}", "no map is left to compare"
    left_out = (
        f"; {blank} of {_count(rows)} are left out, as the prediction moved or the map is constant" if blank else ""
    )
    found = _findings(rows, random, bootstrap)
    if _unchanged(rows):
        return True, "passes", f"with {what} its map is the same ({found[0]}{left_out})"
    if all(one.side == "above" for one in found):
        return True, "passes", f"with {what} its map changes less than from patient to patient ({found[0]}{left_out})"
    below = [one for one in found if one.sure == "below"]
    if below:
        return False, "fails", f"with {what} its map changes as much as from patient to patient ({below[0]}{left_out})"
    return None, "", _undecided(f"the test with {what}", found, "above", left_out)


def _undecided(what: str, found: list[_Finding], passing: _Side, left_out: str) -> str:
    shown = next(one for one in found if one.side != passing)
    few = f"; {shown.patients} patients to set against others are too few" if shown.patients < MIN_PATIENTS else ""
    return f"{what} is not decidable with these films ({shown}{few}{left_out})"


def _count(rows: pd.DataFrame) -> int:
    return int((rows["metric"] == SIMILARITIES[0]).sum())


def _blank(rows: pd.DataFrame) -> int:
    return int(rows.loc[rows["metric"] == SIMILARITIES[0], "value"].isna().sum())

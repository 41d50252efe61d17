"""Metrics that a third-party package brings: their keys, what they are, and where they are shown."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxrx.cli.compare import show
from cxrx.compare import selection
from cxrx.compare.corpus import open_corpus
from cxrx.compare.faithfulness import FAMILIES, deletion
from cxrx.compare.faithfulness.family import Family
from cxrx.compare.run import compare
from cxrx.compare.specs import BUILTIN_METRICS
from cxrx.errors import UsageError
from cxrx.registry import Registry
from cxrx.report.html import write_report
from cxrx.specs import Measure, MetricSpec


@pytest.fixture
def register(monkeypatch):
    """Register the metrics of a plugin called own, beside the built-in ones."""

    def register(*specs):
        registry = Registry("metric", MetricSpec)
        for owner, brought in (("cxrx", BUILTIN_METRICS), ("own", specs)):
            for spec in brought:
                registry.add(owner, spec)
        monkeypatch.setattr(selection, "load", lambda: SimpleNamespace(metrics=registry))

    return register


def area(map_2d, truth):
    return {"hit": 7.0, "model": 7.0, "chexlocalize_hit": 7.0, "size": float(truth.mean()), "peak": float(map_2d.max())}


def distance(a, b):
    return {"spearman": 7.0, "ssim": 7.0, "distance": float(np.abs(a - b).mean())}


LOCALISATION = MetricSpec(
    "area", "localisation", area, summary="of the map",
    measures={"size": Measure("share of the picture", None), "peak": Measure("largest value", higher_is_better=False)},
)  # fmt: skip
AGREEMENT = MetricSpec("distance", "agreement", distance, summary="mean distance")


@pytest.mark.slow
def test_keys_that_are_taken_are_left_out_with_a_sentence(register, tiny):
    plain = compare(tiny.results, metrics="localisation,agreement", n_boot=0)
    register(LOCALISATION, AGREEMENT, MetricSpec("late", "agreement", lambda *_: {"distance": 7.0}))
    found = compare(tiny.results, metrics="localisation,agreement,own/area,distance,late", n_boot=0)
    assert [said for said in found.warnings if "was left out: " in said] == [
        f"{key} of the metric own/{name} was left out: {owner} has a number of that name"
        for key, name, owner in (
            ("hit", "area", "cxrx/localisation"), ("model", "area", "the table"),
            ("chexlocalize_hit", "area", "cxrx/localisation"), ("spearman", "distance", "cxrx/agreement"),
            ("ssim", "distance", "cxrx/agreement"), ("distance", "late", "own/distance"),
        )
    ]  # fmt: skip
    for name in ("summary", "agreement"):
        table = getattr(found, name)
        ours = table[~table["metric"].isin(["size", "peak", "distance"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(ours, getattr(plain, name), rtol=1e-12)  # sums of more columns round otherwise
        assert len(table) > len(ours)


def test_what_judges_no_map_is_in_the_tables_and_in_no_test(register, tiny):
    register(LOCALISATION)
    found = compare(tiny.results, metrics="auto", n_boot=0)
    assert {"size", "peak", "hit"} <= set(found.summary["metric"])
    assert {"peak", "hit"} <= set(found.paired_tests["metric"])
    assert "size" not in set(found.paired_tests["metric"])
    assert found.conventions["localisation: size"] == "share of the picture; it judges no map"
    assert found.conventions["localisation: peak"] == "largest value; lower is better"


def test_they_are_on_the_screen_and_in_the_report(register, tiny, tmp_path, capsys):
    register(LOCALISATION, AGREEMENT)
    with open_corpus([tiny.results]) as corpus:
        found = compare(corpus, metrics="fast", n_boot=0)
        page = write_report(found, corpus, tmp_path / "report.html").read_text()
    assert {kind: list(measures) for kind, measures in found.plugin_metrics.items()} == {
        "localisation": ["size", "peak"], "agreement": ["distance"], "faithfulness": [],
    }  # fmt: skip
    show(found)
    screen = capsys.readouterr().out
    assert "rank" in screen
    assert "size" in screen
    assert "peak" in screen
    assert "agreement: distance of two methods' maps" in screen
    for words in (">Size<", ">Peak<", "Distance, n =", "mean distance; higher is better"):
        assert words in page


def test_a_metric_chooses_its_suites(register):
    slow = MetricSpec("slow", "localisation", area, suites=("full",))
    behaving = MetricSpec("behaving", "faithfulness", area)
    register(slow, behaving)
    assert {suite: list(selection.select(suite).single()) for suite in selection.SUITE_NAMES} == {
        "auto": ["own/behaving"], "fast": [], "full": ["own/slow", "own/behaving"],
    }  # fmt: skip
    assert list(selection.select("slow").single()) == ["own/slow"]
    with pytest.raises(UsageError, match="no metric named 'slwo'"):
        selection.select("slwo")


def test_suites_of_the_built_in_metrics():
    chosen = {suite: selection.select(suite) for suite in selection.SUITE_NAMES}
    assert {suite: [family.name for family in one.families] for suite, one in chosen.items()} == {
        "fast": [], "auto": ["deletion", "insertion"], "full": [family.name for family in FAMILIES],
    }  # fmt: skip
    assert {suite: one.protocols for suite, one in chosen.items()} == {
        "fast": (), "auto": (), "full": ("chexlocalize", "arun"),
    }  # fmt: skip
    by_full_name = selection.select("cxrx/road,cxrx/chexlocalize,cxrx/agreement")
    assert by_full_name.names == ["localisation", "agreement", "faithfulness", "chexlocalize", "road"]
    assert selection.select("road_morf").names == ["faithfulness", "road"]


def test_a_family_of_a_plugin_is_run_like_ours_and_may_not_take_our_scores(register):
    own = Family("own_family", measures={"own_score": Measure()}, perturb=deletion().perturb)
    thief = Family("thief", measures={"deletion": Measure()}, perturb=deletion().perturb)
    register(own, thief)
    chosen = selection.select("full")
    assert own in chosen.families
    assert thief not in chosen.families
    assert ("own/thief", "cxrx/deletion has a number called deletion already") in chosen.left_out

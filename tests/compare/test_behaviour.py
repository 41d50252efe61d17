"""Metrics that run the model again, from a results file to tables and verdicts."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from safetensors.torch import save_file

from cxrx import load_model, open_results, run
from cxrx.cli.compare import show
from cxrx.compare import selection
from cxrx.compare.corpus import open_corpus
from cxrx.compare.faithfulness import deletion
from cxrx.compare.faithfulness.family import Family
from cxrx.compare.faithfulness.score import score_faithfulness
from cxrx.compare.faithfulness.table import Behaviour, draw_pairs, measure
from cxrx.compare.notes import Notes
from cxrx.compare.rerun import load_again
from cxrx.compare.run import compare
from cxrx.compare.single import SingleMetrics
from cxrx.compare.specs import BUILTIN_METRICS
from cxrx.explainers.seeds import derive_seed
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.phantom import write_folder
from cxrx.registry import Registry
from cxrx.results.reader import Results
from cxrx.specs import Measure, MetricSpec

pytestmark = pytest.mark.slow  # they run the demo models again


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("behaviour")
    write_folder(folder / "films", 6, 21, size=(160, 144), masks=False)
    for name in ("demo-densenet", "demo-vit"):
        run(load_model(name), folder / "films", ("gradcam",), folder / "results.h5", workers=0)
    return folder


@pytest.fixture(scope="module")
def comparison(folder):
    return compare(
        folder / "results.h5", metrics="localisation,agreement,deletion,randomisation", max_pairs=2, n_boot=50
    )


def test_every_method_and_control_is_scored_on_the_same_pairs(comparison):
    table = comparison.faithfulness_pairs
    counts = table.groupby(["model", "method"]).size()
    assert set(counts.index.get_level_values("method")) == {"gradcam", "centre", "random", "edge"}
    assert set(counts) == {2}
    assert set(comparison.faithfulness["metric"]) >= {"deletion", "deletion_normalised", "baseline_share"}
    assert set(comparison.curves["curve"]) == {"deletion"}


def test_scores_are_those_of_the_map_on_the_film(comparison, folder):
    row = comparison.faithfulness_pairs.query("method == 'gradcam' and model.str.startswith('demo-densenet')").iloc[0]
    with open_corpus([folder / "results.h5"]) as corpus:
        again = load_again(corpus, row["model"], Notes())
        ((ids, x),) = again.batches([row["image_id"]])
        assert ids == [row["image_id"]]
        target = corpus.models[row["model"]].findings.index(row["finding"])
    with open_results(folder / "results.h5") as results:
        grid = results.maps("gradcam", row["model"], image=row["image_id"], finding=row["finding"])
        stored = results.logits(row["model"])[results.row(row["image_id"])]
    np.testing.assert_allclose(again.model.logits(x)[0], stored, atol=1e-4)
    found = score_faithfulness(
        again.model, x, np.maximum(grid, 0)[None, None], np.array([[target]]), ("deletion",),
        seeds=np.array([derive_seed(0, "faithfulness", row["image_id"])]),
    )  # fmt: skip
    assert row["deletion"] == pytest.approx(found.scores["deletion"][0, 0], abs=1e-4)


def test_the_edge_control_fails_the_randomisation(comparison):
    verdicts = comparison.sanity_verdicts.query("test == 'randomisation'").set_index(["model", "method"])
    edge = verdicts.xs("edge", level="method")
    assert list(edge["passed"]) == [False, False]
    assert all(
        "edge fails: its map does not change" in sentence for sentence in comparison.verdict if "edge fails" in sentence
    )
    assert any("edge fails" in sentence for sentence in comparison.verdict)
    last = (
        comparison.sanity.query("test == 'randomisation' and metric == 'spearman'").groupby(["model", "method"]).last()
    )
    assert (last.xs("edge", level="method")["value"] > 1 - 1e-6).all()
    assert (last.xs("gradcam", level="method")["value"] < 0.9).all()


def test_models_are_compared_on_the_same_films(comparison):
    assert set(comparison.model_agreement["method"]) == {"gradcam"}
    row = comparison.model_agreement.query("finding == 'all' and metric == 'spearman'").iloc[0]
    assert row["model_a"].startswith("demo-densenet")
    assert row["model_b"].startswith("demo-vit")
    assert -1 <= row["value"] <= 1
    tests = comparison.paired_tests.query("kind == 'models' and finding == 'all'")
    assert {"hit", "iou", "deletion_normalised"} <= set(tests["metric"])
    assert "deletion" not in set(tests["metric"])  # logits of two networks are two scales
    assert set(tests["method_a"]) == {"gradcam"}


def test_costs_are_there(comparison):
    assert set(comparison.costs["method"]) == {"gradcam"}
    assert (comparison.costs["seconds_a_map"] > 0).all()
    with_maps = comparison.costs.set_index("model")["maps"]
    assert (with_maps >= 6).all()  # at least one finding a film


@pytest.mark.slow
def test_a_model_that_is_gone_is_told_and_the_rest_is_made(folder, tmp_path):
    model = load_model("demo-vit")
    other = other_weights(tmp_path)
    run(load_model("demo-vit", other), folder / "films", ("gradcam",), tmp_path / "own.h5", targets="truth", workers=0)
    other.unlink()
    found = compare(tmp_path / "own.h5", metrics="localisation,deletion", n_boot=0)
    assert len(found.summary)
    assert found.faithfulness.empty
    (why,) = [why for what, why in found.skipped if what.startswith("faithfulness of")]
    assert "its weights are no longer where they were" in why
    given = compare(folder / "results.h5", metrics="deletion", model=model, n_boot=0, max_pairs=1)
    assert len(given.faithfulness)


@pytest.mark.slow
def test_films_that_are_gone_are_told(folder, tmp_path):
    (tmp_path / "films").symlink_to(folder / "films")
    run(load_model("demo-vit"), tmp_path / "films", ("random",), tmp_path / "r.h5", workers=0)
    (tmp_path / "films").unlink()
    found = compare(tmp_path / "r.h5", metrics="deletion", n_boot=0)
    assert found.faithfulness.empty
    assert any("its films cannot be found" in why for _, why in found.skipped)
    again = compare(tmp_path / "r.h5", metrics="deletion", n_boot=0, images=folder / "films", max_pairs=2)
    assert len(again.faithfulness)


def test_pairs_are_drawn_by_seed_and_those_that_all_methods_share_come_first(folder):
    with open_corpus([folder / "results.h5"]) as corpus:
        data = next(iter(corpus.models.values()))
        everything = draw_pairs(corpus, data, 1000, 0)
        assert everything == data.pairs()
        few = draw_pairs(corpus, data, 3, 0)
        assert few == draw_pairs(corpus, data, 3, 0)
        assert set(few) < set(everything)


@pytest.mark.slow
def test_plugins_that_fail_are_told_and_signed_maps_are_taken_as_stored(folder):
    seen = []

    def wrong(model, x, maps, targets):
        seen.append(float(maps.min()))
        return {"odd": np.zeros(3)}

    notes = Notes()
    spec = MetricSpec("own/odd", "faithfulness", wrong)
    single = SingleMetrics({spec.name: spec}, {}, notes)
    with open_corpus([folder / "results.h5"]) as corpus:
        slug = next(iter(corpus.models))
        rerun = load_again(corpus, slug, notes)
        pairs = draw_pairs(corpus, rerun.data, 2, 0)
        for signed in (False, True):
            found = measure(
                rerun, corpus, pairs, (deletion(),), single, seed=0, notes=notes, signed=signed
            )  # fmt: skip
            assert len(found.rows) == 8  # of gradcam and three controls: ours stay
            assert np.isfinite([row["deletion"] for row in found.rows]).all()
    assert min(seen[: len(seen) // 2]) == 0
    assert min(seen[len(seen) // 2 :]) < 0
    notes.flush()
    assert any(
        "own/odd failed on 2 batches of gradcam (it returned odd of shape (3,)" in said for said in notes.warnings
    )


def test_a_family_that_fails_is_left_out_with_all_that_it_said(folder):
    calls = []

    def perturb(case):
        def read(logits, references, explained):
            calls.append(1)
            if len(calls) > 3:
                raise RuntimeError("no more")
            return {"own": float(logits[0, 0])}, {"own": (np.zeros(1), np.zeros(1))}

        return iter([case.picture]), read

    notes, own = Notes(), Family("own", baseline="black", measures={"own": Measure()}, perturb=perturb)
    with open_corpus([folder / "results.h5"]) as corpus:
        rerun = load_again(corpus, next(iter(corpus.models)), notes)
        pairs = draw_pairs(corpus, rerun.data, 2, 0)
        found = measure(rerun, corpus, pairs, (deletion(), own), SingleMetrics({}, {}, notes), seed=0, notes=notes)
    assert len(found.rows) == 8
    assert not any("own" in row for row in found.rows)
    assert "own" not in found.x
    assert np.isfinite([row["deletion"] for row in found.rows]).all()
    assert ("own of " + rerun.data.slug, "the metric failed (RuntimeError: no more)") in notes.skipped


def test_a_faithfulness_metric_of_a_plugin_has_a_direction_and_takes_no_key_of_ours(folder, monkeypatch, capsys):
    def height(model, x, maps, targets):
        values = maps.mean(dim=(2, 3)).double().numpy()
        return {"road": values, "patient": values, "height": values, "films": np.full(targets.shape, 1.0)}

    spec = MetricSpec(
        "height", "faithfulness", height,
        measures={"height": Measure("mean of the map", higher_is_better=False), "films": Measure("how many", None)},
    )  # fmt: skip
    registry = Registry("metric", MetricSpec)
    for owner, one in [*(("cxrx", one) for one in BUILTIN_METRICS), ("own", spec)]:
        registry.add(owner, one)
    monkeypatch.setattr(selection, "load", lambda: SimpleNamespace(metrics=registry))
    found = compare(folder / "results.h5", metrics="own/height", max_pairs=4, n_boot=0)
    assert set(found.faithfulness["metric"]) == {"height", "films"}
    assert [said for said in found.warnings if "was left out: " in said] == [
        "road of the metric own/height was left out: cxrx/road has a number of that name",
        "patient of the metric own/height was left out: the table has a number of that name",
    ]
    assert set(found.paired_tests["metric"]) == {"height"}
    means = found.faithfulness.query("metric == 'height' and finding == 'all' and model.str.contains('vit')")
    means = means.set_index("method")["value"]
    assert any(f"the model follows gradcam: height {means['gradcam']:.2f} (lower is better" in s for s in found.verdict)
    lowest = means.drop("gradcam").idxmin()
    assert any(f"gradcam against {lowest}: " in said for said in found.verdict)
    show(found)
    assert "faithfulness: mean over findings" in capsys.readouterr().out


@pytest.mark.slow
def test_moved_films_are_looked_for_once(folder, monkeypatch):
    calls = []
    search = Results.paths
    monkeypatch.setattr(Results, "paths", lambda self, images=None: calls.append(images) or search(self, images))
    compare(folder / "results.h5", metrics="localisation,deletion", images=folder / "films", n_boot=0, max_pairs=1)
    assert calls == [folder / "films"]  # for the edges, and twice for each of two models


@pytest.mark.slow
def test_a_film_is_taken_from_where_it_still_is(folder, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(folder / "films", tmp_path / name / "films")
        run(load_model("demo-vit"), tmp_path / name / "films", ("random",), tmp_path / name / "r.h5", workers=0)
    shutil.rmtree(tmp_path / "one" / "films")
    files = [tmp_path / name / "r.h5" for name in ("one", "two")]
    assert len(compare(files, metrics="deletion", n_boot=0, max_pairs=2).faithfulness)


@pytest.mark.slow
def test_a_named_model_that_is_not_in_the_results_is_told(folder, tmp_path):
    model = load_model("demo-vit", other_weights(tmp_path))
    found = compare(folder / "results.h5", metrics="deletion", model=model, n_boot=0, max_pairs=1)
    assert any(model.slug in said and "not used" in said for said in found.warnings)
    assert len(found.faithfulness)  # of the models that the file records


def other_weights(folder):
    """Write other weights of the demo model."""
    state = load_model("demo-vit").module.state_dict()
    save_file({key: (value + 0.01).contiguous() for key, value in state.items()}, folder / "own.safetensors")
    return folder / "own.safetensors"


@pytest.mark.slow
def test_maps_that_hold_nan_are_told(folder, tmp_path):
    for name in ("results.h5", "results.private.csv"):
        shutil.copy(folder / name, tmp_path / name)
    with h5py.File(tmp_path / "results.h5", "r+") as file:
        for model in file["maps"].values():
            model["gradcam/values"][...] = np.nan
    found = compare(tmp_path / "results.h5", metrics="deletion", n_boot=0, max_pairs=2)
    assert set(found.faithfulness["method"]) == {"centre", "random", "edge"}
    assert sum("2 maps of gradcam" in said and "do not count in faithfulness" in said for said in found.warnings) == 2


def test_curves_are_of_the_pairs_that_all_methods_have():
    keys = [(f"i{i}", f"p{i}", "Mass") for i in range(12)]
    found = Behaviour("m", x={"deletion": np.array([0.0, 1.0])}, keys={"a": keys, "b": keys[:4] + keys[6:]})
    for method, own in found.keys.items():
        found.curves[method, "deletion"] = [np.array([1.0, int(image_id[1:])]) for image_id, *_ in own]
    table = found.curve_table(PatientBootstrap([patient for _, patient, _ in keys], 10, 0))
    ends = table[table["x"] == 1].set_index("method")
    assert ends["n"].to_dict() == {"a": 10, "b": 10}
    assert ends["value"].to_dict() == pytest.approx(dict.fromkeys("ab", (66 - 4 - 5) / 10))

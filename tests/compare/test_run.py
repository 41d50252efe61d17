from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from cxrx.compare.run import compare
from cxrx.errors import ResultsError, UsageError
from cxrx.export.tables import write_tables
from cxrx.importing.maps import import_maps
from cxrx.metrics.localisation import METRICS, score_localisation

ROOT = Path(__file__).parents[2]


def macro(comparison, method, metric):
    table = comparison.summary
    row = table[(table["method"] == method) & (table["metric"] == metric) & (table["finding"] == "all")]
    return row.iloc[0]


@pytest.fixture(scope="module")
def comparison(tiny):
    return compare(tiny.results, n_boot=200)


def test_rows_of_methods_and_controls(comparison):
    methods = ["gradcam", "smoothgrad", "prior", "centre", "random", "edge"]
    assert list(dict.fromkeys(comparison.summary["method"])) == methods
    assert list(comparison.summary.columns) == [
        "model", "method", "finding", "metric", "value", "n", "nan", "low", "high", "skill",
    ]  # fmt: skip
    assert set(comparison.summary["finding"]) == {"all", "Mass", "Effusion"}  # Pleural Effusion is Effusion
    assert len(comparison.per_pair) == 21 * 6
    assert set(METRICS) <= set(comparison.per_pair.columns)


def test_scores_are_those_of_the_map_on_source_pixels(comparison, tiny, on_source):
    image = tiny.ids[3]
    x, y, w, h = (int(v) for v in tiny.boxes[image])
    truth = np.zeros((120, 96), dtype=bool)
    truth[y : y + h, x : x + w] = True
    expected = score_localisation(on_source(np.maximum(tiny.maps["gradcam"][3, 0], 0)), truth)
    table = comparison.per_pair
    row = table[(table["image_id"] == image) & (table["method"] == "gradcam") & (table["finding"] == "Mass")].iloc[0]
    assert {name: row[name] for name in METRICS} == pytest.approx(expected)
    assert row["area"] == pytest.approx(truth.mean())


def test_summary_is_the_mean_of_the_findings_means(comparison):
    pairs = comparison.per_pair
    pairs = pairs[pairs["method"] == "smoothgrad"]
    row = macro(comparison, "smoothgrad", "mass")
    assert row["value"] == pytest.approx(pairs.groupby("finding")["mass"].mean().mean())
    assert row["n"] == 21
    assert row["low"] < row["value"] < row["high"]
    prior = macro(comparison, "prior", "mass")["value"]
    assert row["skill"] == pytest.approx((row["value"] - prior) / (1 - prior))


def test_a_method_that_looks_beats_those_that_do_not(comparison):
    for metric in ("hit", "iou", "mass", "rank"):
        lead = macro(comparison, "gradcam", metric)
        assert all(lead["low"] > macro(comparison, name, metric)["high"] for name in ("smoothgrad", "centre", "random"))
    assert any("gradcam is better" in sentence for sentence in comparison.verdict)


def test_classification_and_its_refusal(comparison, tiny):
    table = comparison.classification.set_index("finding")
    assert table.loc["Effusion", "n"] == 14
    assert 0.5 < table.loc["Effusion", "auroc"] <= 1
    assert "both classes" in table.loc["Mass", "note"]
    assert ("AUROC of Mass (tiny@01234567)", table.loc["Mass", "note"]) in comparison.skipped
    with h5py.File(tiny.results) as file:
        p = file["predictions/tiny@01234567/probability"][:, 1]
    assert table.loc["Effusion", "auroc"] == pytest.approx(roc_auc_score([i % 2 == 0 for i in range(14)], p))


def test_agreement_has_every_two_methods_and_a_baseline(comparison):
    table = comparison.agreement[comparison.agreement["finding"] == "all"]
    pairs = {frozenset(pair) for pair in zip(table["method_a"], table["method_b"], strict=True)}
    assert len(pairs) == 6
    row = table[(table["method_a"] == "gradcam") & (table["method_b"] == "smoothgrad")].iloc[0]
    assert abs(row["value"]) < 0.1
    assert np.isfinite(row["random_pair"])


def test_the_same_again_is_the_same(comparison, tiny):
    again = compare(tiny.results, n_boot=200)
    for name in ("summary", "per_pair", "classification", "agreement"):
        assert getattr(again, name).equals(getattr(comparison, name))


def test_files_written(comparison, tmp_path, tiny):
    paths = write_tables(comparison, tmp_path / "out")
    assert [path.name for path in paths] == [
        "summary.csv", "per_pair.csv", "classification.csv", "classifier_curves.csv", "thresholds.csv", "agreement.csv",
        "strata.csv", "paired_tests.csv", "compare.json",
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} >= {"gradcam", "centre", "random"}
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["verdict"] == comparison.verdict
    best = found["statements"][0]
    assert (best["kind"], best["who"], best["against"], best["metric"]) == (
        "localisation", "gradcam", ["smoothgrad"], "hit"
    )  # fmt: skip
    assert f"{best['value']:.2f} [{best['low']:.2f}, {best['high']:.2f}]" in found["verdict"][0]
    assert {"centre", "random"} <= {control["who"] for control in best["beside"]}
    decided = [one for one in found["statements"] if one["kind"] == "difference"]
    assert all(one["decision"] in {"better", "worse", "same", "undecided"} for one in decided)
    assert [one["against"] for one in decided if one["who"] == "gradcam"][-1] == ["smoothgrad"]
    assert found["conventions"]["localisation: hit"]
    assert found["models"]["tiny@01234567"]["methods"]["gradcam"]["relu"] == 1
    assert found["classification"][0]["auroc"] is None  # no NaN in JSON
    text = "".join(path.read_text() for path in paths)
    assert not any(name in text for name in tiny.names)  # tables name films by id
    assert str(tmp_path) not in text


@pytest.mark.slow
def test_truth_by_file_name_and_by_id(make_tiny, tmp_path):
    own = make_tiny(boxed=False, labelled=False)
    bare = compare(own.results, n_boot=0)
    assert bare.summary.empty
    assert [what for what, _ in bare.skipped] == [
        "classification",
        "localisation",
        "faithfulness of tiny@01234567",
        "sanity",
    ]
    lines = [f"{name},Mass,{','.join(map(str, own.boxes[i]))}" for name, i in zip(own.names, own.ids, strict=True)]
    table = tmp_path / "boxes.csv"
    table.write_text("path,finding,x,y,w,h\n" + "\n".join(lines))
    named = compare(own.results, truth=table, n_boot=0)
    assert macro(named, "gradcam", "hit")["value"] == 1
    assert named.settings["truth"] == "boxes.csv: truth of 14 of 14 films"
    table.write_text("image_id,finding,x,y,w,h\n" + "\n".join(f"{i},Mass,1,1,20,20" for i in [*own.ids, "f" * 16]))
    by_id = compare(own.results, truth=table, n_boot=0)
    assert set(by_id.per_pair["image_id"]) == set(own.ids)
    assert "boxes.csv names 1 films that are not in the results" in by_id.warnings
    own.results.with_name("results.private.csv").unlink()
    table.write_text("path,finding,x,y,w,h\n" + "\n".join(lines))
    lost = compare(own.results, truth=table, n_boot=0)
    assert any("no results.private.csv" in sentence for sentence in lost.warnings)


def test_boxes_outside_and_constant_maps_get_a_sentence(make_tiny, tmp_path):
    own = make_tiny()
    with h5py.File(own.results, "r+") as file:
        values = file["maps/tiny@01234567/gradcam/values"]
        maps = values[:]
        maps[0, 0], maps[1, 0, 0, 0] = 0.25, np.nan
        values[:] = maps
    table = tmp_path / "boxes.csv"
    name = own.names
    table.write_text(
        "path,finding,x,y,w,h\n"
        + "\n".join(f"{n},Mass,10,30,20,20" for n in name[:5])
        + f"\n{name[5]},Mass,900,900,5,5"
    )
    result = compare(own.results, truth=table, n_boot=0)
    told = "\n".join(result.warnings)
    assert "1 boxes or masks lie outside their picture" in told
    assert "2 scored maps of gradcam (tiny@01234567) are constant or hold NaN: they are misses" in told
    pairs = result.per_pair[result.per_pair["method"] == "gradcam"].set_index("image_id")
    assert pairs.loc[own.ids[1], "mass"] == 0
    assert own.ids[5] not in set(pairs[pairs["finding"] == "Mass"].index)


def test_truth_of_which_no_finding_has_a_map_gives_empty_tables(make_tiny, tmp_path):
    own, table = make_tiny(boxed=False), tmp_path / "boxes.csv"
    table.write_text("path,finding,x,y,w,h\n" + "\n".join(f"{n},Nodule,10,30,20,20" for n in own.names))
    result = compare(own.results, truth=table, metrics="localisation,agreement", n_boot=0)
    assert result.per_pair.empty
    assert set(result.strata["metric"]) == {"dispersion"}
    assert ("localisation of 14 of 14 truth pairs", "tiny@01234567 has no map of them") in result.skipped


def test_what_the_crop_cut_off_is_told(make_tiny, tmp_path):
    own = make_tiny()
    table = tmp_path / "boxes.csv"
    table.write_text("path,finding,x,y,w,h\n" + "\n".join(f"{n},Mass,10,0,20,30" for n in own.names))
    result = compare(own.results, truth=table, n_boot=0)
    assert any("14 truths reach beyond what the crop let tiny@01234567 see" in said for said in result.warnings)


def test_few_patients_give_no_interval(make_tiny):
    result = compare(make_tiny(n=6).results)
    assert result.summary["low"].isna().all()
    assert any("fewer than 10 patients" in sentence for sentence in result.verdict)


def test_two_files_are_united(make_tiny):
    one, two = make_tiny("one", n=8), make_tiny("two", n=8, seed=1)
    both = compare([one.results, two.results], n_boot=0)
    assert both.films == 16
    # another seed is another setting: the second file's model must not be mixed in
    assert any("holds another tiny@01234567" in sentence for sentence in both.warnings)
    assert any("no film in common" in sentence for sentence in both.warnings)
    assert set(both.per_pair["image_id"]) == set(one.ids)


def test_methods_of_two_files_meet_on_the_same_films(make_tiny):
    one, two = make_tiny("one", methods=("gradcam",)), make_tiny("two", methods=("smoothgrad",))
    both = compare([one.results, two.results], n_boot=0)
    assert both.films == 14
    assert {"gradcam", "smoothgrad"} <= set(both.summary["method"])
    assert both.warnings == []


def test_controls_of_the_file_take_the_place_of_ours(make_tiny):
    result = compare(make_tiny(methods=("gradcam", "centre")).results, n_boot=0)
    assert (result.per_pair["method"] == "centre").sum() == 21
    assert macro(result, "centre", "hit")["value"] > 0.9  # those in this file cheat
    assert result.controls >= {"centre"}


def test_no_maps_leaves_the_classifier(make_tiny):
    result = compare(make_tiny(methods=()).results, n_boot=0)
    assert not result.classification.empty
    assert ("localisation", "the results hold no maps; make some with cxrx explain") in result.skipped


def test_demo_models_warn_on_real_films(make_tiny):
    result = compare(make_tiny(demo=True).results, n_boot=0)
    assert result.demo
    assert "trained on synthetic films only; 14 of these 14 films are not synthetic" in result.warnings[0]


def test_what_fits_is_said(tmp_path, tiny):
    with pytest.raises(UsageError, match="localizatoin"):
        compare(tiny.results, metrics="localizatoin")
    with pytest.raises(UsageError, match="at least one"):
        compare([])
    with pytest.raises(UsageError, match="there is no"):
        compare(tiny.results, truth=tmp_path / "none.csv")
    with pytest.raises(UsageError, match="no results file"):
        compare(tmp_path / "none.h5")
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(ResultsError, match=r"bad\.h5"):
        compare(tmp_path / "bad.h5")


def test_sections_by_name(tiny):
    result = compare(tiny.results, metrics="classification", n_boot=0)
    assert result.per_pair.empty
    assert result.agreement.empty
    assert not result.classification.empty
    with_protocol = compare(tiny.results, metrics=["localisation", "chexlocalize"], n_boot=0)
    assert macro(with_protocol, "gradcam", "chexlocalize_hit")["value"] == 1


@pytest.mark.slow
def test_comparing_needs_no_torch(tiny, tmp_path):
    code = (
        "import sys; from pathlib import Path; from cxrx.compare.corpus import open_corpus\n"
        "from cxrx.compare.run import compare; from cxrx.report.html import write_report\n"
        f"with open_corpus([Path({str(tiny.results)!r})]) as corpus:\n"
        f"    write_report(compare(corpus, n_boot=0), corpus, Path({str(tmp_path / 'report.html')!r}))\n"
        "print(sorted({'torch', 'timm', 'captum', 'pytorch_grad_cam'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_edges_are_asked_of_films_with_maps_only(make_tiny, monkeypatch):
    """A truth that nothing explains is no reason to read its film again."""
    from cxrx.compare import run as module

    own = make_tiny(n=14)
    with h5py.File(own.results, "r+") as file:
        for method in ("gradcam", "smoothgrad"):
            file[f"maps/tiny@01234567/{method}/present"][4:] = 0
    monkeypatch.setattr(module, "MAX_EDGES", 4)
    result = compare(own.results, metrics="localisation", n_boot=0)
    assert "edge" in set(result.per_pair["method"])
    assert result.per_pair["image_id"].nunique() == 4


def test_imported_maps_of_many_sizes(tmp_path):
    """Maps made elsewhere, with masks and without a model or predictions."""
    folder = tmp_path / "maps"
    folder.mkdir()
    rng = np.random.default_rng(0)
    expected = {}
    for i, shape in enumerate([(50, 70), (64, 40), (30, 30)]):
        truth = np.zeros(shape, dtype=bool)
        truth[5:20, 8:25] = True
        values = rng.standard_normal((7 + i, 9)).astype(np.float32)
        np.save(folder / f"film{i}__Mass.npy", values)
        Image.fromarray(truth.astype(np.uint8) * 255).save(folder / f"film{i}__Mass.png")
        expected[i] = score_localisation(values, truth)
    import_maps(folder, out=tmp_path / "results.h5", method="theirs")
    result = compare(tmp_path / "results.h5", n_boot=0)
    rows = result.per_pair[result.per_pair["method"] == "theirs"]
    assert sorted(rows["iou"]) == pytest.approx(sorted(scores["iou"] for scores in expected.values()))
    assert sorted(rows["hit"]) == sorted(scores["hit"] for scores in expected.values())
    assert {"centre", "random", "prior"} <= set(result.summary["method"])
    assert any(what.startswith("classification") for what, _ in result.skipped)


def test_truth_of_other_findings_only(make_tiny, tmp_path):
    own = make_tiny(boxed=False)
    table = tmp_path / "boxes.csv"
    table.write_text("path,finding,x,y,w,h\n" + "\n".join(f"{n},Nodule,10,30,20,20" for n in own.names))
    result = compare(own.results, truth=table, n_boot=0)
    assert result.summary.empty
    assert ("localisation of 14 of 14 truth pairs", "tiny@01234567 has no map of them") in result.skipped
    assert [path.name for path in write_tables(result, tmp_path / "out")][:2] == ["summary.csv", "per_pair.csv"]


def test_a_control_with_holes_is_filled(make_tiny):
    own = make_tiny(methods=("gradcam", "random"))
    with h5py.File(own.results, "r+") as file:
        present = file["maps/tiny@01234567/random/present"]
        present[:5] = 0
    result = compare(own.results, n_boot=0)
    counts = result.per_pair["method"].value_counts()
    assert counts["random"] == counts["gradcam"] == 21
    assert not any("compared on" in sentence for sentence in result.warnings)


def test_methods_are_compared_on_the_pairs_that_all_have(make_tiny):
    """Two of three methods lack maps: every number of a finding, the skill and the tests are of the same pairs."""
    own = make_tiny(methods=("gradcam", "smoothgrad", "layercam"))
    with h5py.File(own.results, "r+") as file:
        file["maps/tiny@01234567/smoothgrad/present"][:2] = 0  # two films, of which one has an effusion too
        file["maps/tiny@01234567/layercam/present"][:, 1] = 0  # all effusions
    result = compare(own.results, n_boot=200)
    assert (
        "tiny@01234567: methods are compared on the 12 of 21 pairs of film and finding that all have (smoothgrad lacks "
        "3, layercam lacks 7)"
    ) in result.warnings
    pairs, summary = result.per_pair, result.summary
    assert pairs["method"].value_counts().to_dict() == {
        "gradcam": 21, "smoothgrad": 18, "layercam": 14, **dict.fromkeys(("prior", "centre", "random", "edge"), 21),
    }  # fmt: skip
    assert summary.groupby("finding")["n"].agg(set).to_dict() == {"all": {12}, "Mass": {12}, "Effusion": {6}}
    assert "layercam" not in set(summary[summary["finding"] == "Effusion"]["method"])
    kept = pairs[(pairs["finding"] == "Mass") & ~pairs["image_id"].isin(own.ids[:2])]
    for method in ("gradcam", "prior", "centre"):
        expected = kept[kept["method"] == method]["mass"].mean()
        assert macro(result, method, "mass")["value"] == pytest.approx(expected)
    tests = result.paired_tests[result.paired_tests["metric"] == "mass"]
    assert tests.groupby("finding")["n"].agg(set).to_dict() == {"all": {12}, "Mass": {12}, "Effusion": {6}}
    best, *_ = result.statements
    assert (best.who, best.n, best.patients) == ("gradcam", 12, 11)
    strata = result.strata[result.strata["metric"] == "iou"]
    assert strata[strata["by"] == "size"].groupby("stratum")["n"].nunique().eq(1).all()


def test_a_finding_that_the_prior_lacks_is_no_part_of_the_mean_over_findings(make_tiny, tmp_path):
    own = make_tiny(boxed=False)
    table = tmp_path / "boxes.csv"
    rows = [f"{name},Mass,20,30,20,20" for name in own.names] + [f"{own.names[0]},Pleural Effusion,40,60,20,20"]
    table.write_text("path,finding,x,y,w,h\n" + "\n".join(rows))
    result = compare(own.results, truth=table, n_boot=0)
    assert any(
        "the 14 of 15 pairs of film and finding that all have (prior lacks 1)" in said for said in result.warnings
    )
    summary = result.summary[result.summary["metric"] == "hit"].set_index(["method", "finding"])
    assert summary.loc[("gradcam", "all"), "value"] == summary.loc[("gradcam", "Mass"), "value"]
    assert summary.loc[("gradcam", "Effusion"), "n"] == 1

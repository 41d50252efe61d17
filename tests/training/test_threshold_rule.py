"""The rule by which a training chose its thresholds: with the weights, in the results, in the tables of compare."""

from __future__ import annotations

import pytest

import cxrx
from cxrx.compare.run import compare


@pytest.mark.parametrize(("rule", "stored"), [("f1", "f1-max"), ("youden", "youden"), ("half", "0.5")])
def test_thresholds_keep_the_rule_they_were_chosen_by(easy, config_of, run, tmp_path, rule, stored):
    trained = run(config_of(easy, epochs=1, threshold=rule))
    model = cxrx.load_model(str(trained.out), device="cpu")
    assert model.threshold_rule == stored
    cxrx.run(model, easy, (), tmp_path / "results.h5", workers=0)
    with cxrx.open_results(tmp_path / "results.h5") as results:
        attrs = results.attrs(model.slug)
    assert (attrs["threshold_rule"], attrs["thresholds"]) == (stored, trained.thresholds)
    table = compare(tmp_path / "results.h5", metrics="classification", n_boot=0).thresholds
    rows = table[table["finding"] != "all"]
    assert set(rows["finding"]) == {"Effusion", "Mass"}
    of_training = rows[rows["chosen"] == "validation"]
    if rule == "half":  # nothing was chosen
        assert of_training.empty
        assert set(trained.thresholds.values()) == {0.5}
    else:
        assert set(of_training["rule"]) == {stored}
        assert dict(zip(of_training["finding"], of_training["threshold"], strict=True)) == trained.thresholds
    others = rows[~rows["rule"].isin(["0.5", stored])]
    assert set(others["chosen"]) == {"cross-fitted"}
    assert set(rows[rows["rule"] == "0.5"]["chosen"]) == {"fixed"}

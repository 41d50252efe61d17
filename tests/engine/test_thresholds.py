"""The thresholds that training chose: with the weights, in the results, in what is explained and compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import save_file

from cxrx import load_model, open_results, run
from cxrx.compare.run import compare
from cxrx.engine.targets import choose_targets
from cxrx.errors import UsageError
from cxrx.phantom import write_folder

LOW = {"Consolidation": 1e-6, "Nodule": 0.999}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = load_model("demo-vit")
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    told = {
        "labels": json.dumps(model.labels), "input": json.dumps(vars_of(model.input)), "thresholds": json.dumps(LOW),
    }  # fmt: skip
    save_file({k: v.contiguous() for k, v in model.module.state_dict().items()}, path, told)
    return path


def vars_of(spec):
    return {name: getattr(spec, name) for name in type(spec).__slots__}


def test_positive_is_at_or_above_the_threshold():
    probability = np.array([0.2, 0.5, 0.7], np.float32)
    labels = ("a", "b", "c")
    assert choose_targets("positive", labels, probability, {}) == [1, 2]
    assert choose_targets("positive", labels, probability, {}, {"a": 0.1, "c": 0.9}) == [0, 1]


def test_they_come_with_the_weights_and_go_into_the_results(weights, tmp_path):
    model = load_model("demo-vit", weights)
    assert model.thresholds == LOW
    write_folder(tmp_path / "films", 3, 11, size=(96, 96), masks=False)
    run(model, tmp_path / "films", ("random",), tmp_path / "results.h5", targets="positive", workers=0)
    with open_results(tmp_path / "results.h5") as results:
        assert results.attrs()  # opens
        assert results.attrs(model.slug)["thresholds"] == LOW
        present = results.present(model.slug, "random")
        column = results.findings(model.slug, "random").index("Consolidation")
        assert present[:, column].all()  # a threshold near 0 makes every film positive
    table = compare(tmp_path / "results.h5", metrics="classification", n_boot=0)
    rows = table.classification.set_index("finding")["threshold"]
    assert rows["Nodule"] == pytest.approx(0.999)
    assert rows["Effusion"] == 0.5
    judged = table.thresholds[table.thresholds["chosen"] == "validation"]
    assert set(judged["finding"]) - {"all"} <= set(LOW)
    assert set(judged["rule"]) == {"f1-max"}  # which a file that tells no rule was chosen by


def test_other_labels_have_no_thresholds(weights):
    assert load_model("demo-vit", weights, labels=["a", "b", "c", "d", "e"]).thresholds == {}
    assert load_model("demo-vit").thresholds == {}


@pytest.mark.parametrize("stored", ['{"Nodule": 1.5}', '{"Nodule": "0.5"}', "[0.5]", "no"])
def test_what_is_no_threshold_is_refused(weights, tmp_path, stored):
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(weights, framework="pt") as file:
        told = file.metadata() | {"thresholds": stored}
    save_file(load_file(weights), tmp_path / "bad.safetensors", told)
    with pytest.raises(UsageError, match="thresholds in the metadata"):
        load_model("demo-vit", tmp_path / "bad.safetensors")

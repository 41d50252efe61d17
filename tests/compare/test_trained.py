"""On films with known truth a map of a trained model beats every baseline, and the comparison says so."""

from __future__ import annotations

import pytest

from cxrx import load_model, run
from cxrx.compare.run import compare
from cxrx.phantom import write_folder


@pytest.mark.slow
def test_grad_cam_of_the_demo_model_beats_every_baseline(tmp_path):
    write_folder(tmp_path / "films", 60, 777, size=(256, 224), masks=False)
    run(load_model("demo-densenet"), tmp_path / "films", ("gradcam",), tmp_path / "results.h5", targets="truth")
    comparison = compare(tmp_path / "results.h5", metrics="localisation", seed=0)
    tests = comparison.paired_tests.query("metric == 'hit' and finding == 'all' and method_a == 'gradcam'")
    tests = tests.set_index("method_b")
    assert set(tests.index) == {"prior", "centre", "random", "edge"}
    assert (tests["difference"] > 0).all()
    assert (tests["p_holm"] < 0.05).all()
    assert tests["decided"].all()
    assert any("gradcam against prior" in said and "gradcam is better" in said for said in comparison.verdict)

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cxrx.compare.run import compare
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.strata import KINDS, strata


def test_a_box_tells_found_from_missed_where_no_label_does(make_tiny):
    own = make_tiny(labelled=False)
    table = compare(own.results, metrics="localisation,agreement", n_boot=0).strata
    found = table[(table["by"] == "outcome") & (table["metric"] == "hit")]
    counts = found.groupby("method")["n"].sum()
    assert set(counts.index) >= {"gradcam", "smoothgrad", "prior"}
    assert set(counts) == {21}  # every pair with a box is TP or FN, under every method


def test_strata_need_no_agreement(make_tiny):
    table = compare(make_tiny().results, metrics="localisation", n_boot=0).strata
    assert set(table["by"]) == set(KINDS)
    assert set(table["metric"]) >= {"hit", "iou", "mass"}


def test_thirds_by_confidence_are_the_same_pairs_for_every_method():
    """Methods with maps beyond the truth and controls drawn for the truth alone are cut alike."""
    n = 30
    base = {"image_id": [f"i{i}" for i in range(n)], "patient": [f"p{i}" for i in range(n)], "model": "m"}
    base |= {"finding": "Mass", "probability": np.linspace(0, 1, n), "outcome": ""}
    dispersion = pd.DataFrame(base | {"method": "gradcam", "dispersion": 0.1})
    located = pd.DataFrame(base | {"area": 0.05, "hit": 1.0, "iou": np.linspace(0, 1, n), "mass": 0.5}).tail(12)
    per_pair = pd.concat([located.assign(method=method) for method in ("gradcam", "prior")])
    table = strata(per_pair, dispersion, ("confidence",), PatientBootstrap(base["patient"], 0, 0))
    counts = table[table["metric"] == "hit"].set_index(["method", "stratum"])["n"]
    assert counts["gradcam"].to_dict() == counts["prior"].to_dict() == {"medium": 2, "high": 10}
    whole = table[(table["stratum"] == "all") & (table["method"] == "gradcam")]
    assert whole["value"].item() == pytest.approx(1)

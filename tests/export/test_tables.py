from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest

from cxrx.errors import UsageError
from cxrx.export.specs import BUILTIN_EXPORTERS
from cxrx.export.tables import write_chexnet_csv, write_long_csv
from cxrx.results.reader import open_results


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_long_table_holds_every_prediction(tiny, tmp_path):
    with open_results(tiny.results) as results:
        write_long_csv(results, tmp_path / "a.csv")
        table = results.predictions()
    rows = rows_of(tmp_path / "a.csv")
    assert len(rows) == 14 * 3
    np.testing.assert_allclose([float(row["logit"]) for row in rows], table["logit"], rtol=1e-6)
    assert {row["film"] for row in rows} == set(tiny.names)
    assert {row["label"] for row in rows} <= {"0", "1"}
    mass = [row for row in rows if row["finding"] == "Mass"]
    assert {row["label"] for row in mass} == {"1"}


def test_chexnet_layout(tiny, tmp_path):
    with open_results(tiny.results) as results:
        write_chexnet_csv(results, tmp_path / "a.csv", model="tiny")
        expected = results.probabilities("tiny")
    rows = rows_of(tmp_path / "a.csv")
    assert list(rows[0]) == ["Image Index", "prob_Mass", "prob_Pleural Effusion", "prob_Nodule"]
    assert [row["Image Index"] for row in rows] == tiny.names
    np.testing.assert_allclose(
        [[float(value) for value in list(row.values())[1:]] for row in rows], expected, rtol=1e-6
    )


def test_share_leaves_names_out(tiny, tmp_path):
    with open_results(tiny.results) as results:
        write_long_csv(results, tmp_path / "long.csv", share=True)
        write_chexnet_csv(results, tmp_path / "wide.csv", share=True)
    text = (tmp_path / "long.csv").read_text() + (tmp_path / "wide.csv").read_text()
    assert not any(name in text for name in tiny.names)
    assert [row["Image Index"] for row in rows_of(tmp_path / "wide.csv")] == tiny.ids


def test_formulas_are_quoted(make_tiny, tmp_path):
    own = make_tiny(n=3)
    private = own.results.with_name("results.private.csv")
    private.write_text(private.read_text().replace("film00.png", "'=cmd|x!A0.png", 1))
    with open_results(own.results) as results:
        write_chexnet_csv(results, tmp_path / "wide.csv")
    assert "\n'=cmd|x!A0.png," in (tmp_path / "wide.csv").read_text()


def test_a_file_without_predictions_is_refused(make_tiny, tmp_path):
    own = make_tiny(n=3)
    with h5py.File(own.results, "r+") as file:
        file["predictions/tiny@01234567/present"][:] = 0
    with open_results(own.results) as results, pytest.raises(UsageError, match="no predictions"):
        write_chexnet_csv(results, tmp_path / "wide.csv")


def test_specs_write_what_they_say(tiny, tmp_path):
    assert [spec.name for spec in BUILTIN_EXPORTERS] == ["csv", "chexnet-csv", "png"]
    with open_results(tiny.results) as results:
        for spec in BUILTIN_EXPORTERS[:2]:
            spec.write(results, tmp_path / f"x{spec.suffix}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.chexnet.csv", "x.csv"]

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cxrx.errors import ResultsError, UsageError
from cxrx.reading.record import Status
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.private import private_path
from cxrx.results.reader import Results, open_results
from cxrx.results.records import keyed


@pytest.fixture
def results(store, made):
    part = made.part(range(6), methods=("gradcam", "smoothgrad"), spaces=("native", "input"))
    part.images[2] = made.film(2, Status.FLAGGED, "It is odd.")
    part.images[5] = made.film(5, Status.FAILED, "No.")
    maps = made.maps(range(5)), made.maps(range(5), "smoothgrad", space="input")
    part.blocks = keyed(made.predictions(range(5)), *maps)
    part.failures = [made.failure(5)]
    store.write(part, 0)
    store.write(Contents(blocks=keyed(made.predictions([0], "vit@ffff0000"))), 0)
    pack(store, store.out, truth=made.truth([0, 1]), run={"argv": ["predict"], "films": 6})
    with open_results(store.out) as opened:
        yield opened


def test_tables(results, made):
    images = results.images()
    assert images.columns.tolist() == [
        "image_id", "patient", "sha256", "view", "rows", "columns", "decoder", "status", "message", "synthetic",
    ]  # fmt: skip
    assert images["status"].tolist() == ["ok", "ok", "flagged", "ok", "ok", "failed"]
    assert images["rows"].tolist() == [100 + i for i in range(6)]
    assert images["message"].tolist()[2] == "It is odd."
    assert images["synthetic"].all()

    table = results.predictions()
    assert table.columns.tolist() == ["image_id", "model", "finding", "logit", "probability"]
    assert len(table) == 5 * 3 + 3
    row = table.query("image_id == @made.image_id(3) and finding == 'Nodule'").iloc[0]
    assert row["logit"] == made.predictions([3]).arrays["logit"][0, 1]
    assert row["probability"] == made.predictions([3]).arrays["probability"][0, 1]

    labels = results.labels()
    assert (labels.dtypes == np.int8).all()
    assert labels.loc[made.image_id(1)].to_dict() == {"Effusion": 1, "Nodule": -2, "Mass": -2, "Fracture": -1}
    assert results.boxes().to_dict("records")[1] == {
        "image_id": made.image_id(1), "finding": "Effusion", "x": 1.5, "y": 2.0, "width": 10.25, "height": 20.0,
    }  # fmt: skip
    failures = results.failures()
    assert failures[["image_id", "stage", "code"]].values.tolist() == [[made.image_id(5), "read", "truncated"]]
    assert results.runs() == [{"argv": ["predict"], "films": 6}]
    private = results.private()
    assert private["relative"].tolist()[0] == "secret-folder/000.dcm"
    assert set(private["image_id"]) == set(results.image_ids)


def test_models_go_by_slug_or_short_name_while_it_is_unique(results, made):
    assert results.models() == [made.MODEL, "vit@ffff0000"]
    assert results.model("tiny") == results.model(made.MODEL) == made.MODEL
    with pytest.raises(UsageError, match="several models"):
        results.model()
    with pytest.raises(UsageError, match=r"no model 'tin'.*tiny@0123abcd"):
        results.model("tin")
    assert results.methods() == results.methods("tiny") == ["gradcam", "smoothgrad"]
    assert results.methods("vit") == []
    assert results.findings() == [*made.FINDINGS, "Fracture"]
    assert results.findings("tiny") == results.findings("tiny", "gradcam") == list(made.FINDINGS)


def test_two_variants_of_one_name_are_not_guessed_at(store, made):
    store.write(Contents([made.film(0)], [], keyed(made.predictions([0], "net@1"), made.predictions([0], "net@2"))), 0)
    pack(store, store.out, truth=None, run={})
    with open_results(store.out) as results:
        with pytest.raises(UsageError, match="several models") as error:
            results.model("net")
        assert error.value.hint == "name one of net@1, net@2"
        assert results.model("net@2") == "net@2"


def test_attributes(results, made):
    assert results.attrs()["format"] == "cxrx-results"
    assert results.attrs("tiny")["settings"] == {"dtype": "float32", "weights": "0123abcd"}
    assert results.attrs("tiny")["versions"] == {"torch": "2"}
    attrs = results.attrs("tiny", "smoothgrad")
    assert (attrs["space"], attrs["signed"], len(attrs["fingerprint"])) == ("input", False, 16)


def test_one_map(results, made):
    block = made.maps([3])
    k = int(np.flatnonzero(block.present[0])[0])
    found = results.maps("gradcam", "tiny", image=made.image_id(3), finding=made.FINDINGS[k])
    np.testing.assert_array_equal(found, block.arrays["values"][0, k])
    i, k = np.argwhere(~made.maps(range(5)).present)[0]
    with pytest.raises(UsageError, match="has no map of"):
        results.maps("gradcam", "tiny", image=made.image_id(i), finding=made.FINDINGS[k])
    with pytest.raises(UsageError, match="no film"):
        results.maps("gradcam", "tiny", image="f" * 16, finding="Mass")
    with pytest.raises(UsageError, match="no finding"):
        results.maps("gradcam", "tiny", image=made.image_id(3), finding="Fracture")
    with pytest.raises(UsageError, match="it holds gradcam, smoothgrad"):
        results.maps("lime", "tiny", image=made.image_id(3), finding="Mass")


@pytest.mark.parametrize("rows", [slice(1, 4), slice(None), slice(None, None, 2), [0], [4, 0, 0, 3], [], [0, 5]])
@pytest.mark.parametrize("method", ["gradcam", "smoothgrad"])
def test_many_maps_come_in_the_order_asked_for(results, made, method, rows):
    space = "native" if method == "gradcam" else "input"
    values = results.values("tiny", method, slice(None))
    np.testing.assert_array_equal(results.values("tiny", method, rows), values[rows])
    np.testing.assert_array_equal(
        results.extra("tiny", method, "mask", rows), results.extra("tiny", method, "mask")[rows]
    )
    np.testing.assert_array_equal(
        np.isnan(values[:5]).all(axis=(2, 3)), ~made.maps(range(5), method, space=space).present
    )


def test_maps_of_pairs(results, made):
    present = results.present("tiny", "gradcam")
    pairs = [(i, f) for i in results.image_ids for f in made.FINDINGS] + [("f" * 16, "Mass"), (made.image_id(0), "No")]
    found = results.maps_of("tiny", "gradcam", pairs)
    assert len(found) == present.sum()
    for (image, finding), values in found.items():
        np.testing.assert_array_equal(values, results.maps("gradcam", "tiny", image=image, finding=finding))


def test_extras(results):
    assert results.extras("tiny", "gradcam") == ["area", "mask", "steps"]
    steps, present = results.extra("tiny", "gradcam", "steps"), results.present("tiny", "gradcam")
    np.testing.assert_array_equal(steps, np.arange(6)[:, None] * present)
    with pytest.raises(UsageError, match="it kept area, mask, steps"):
        results.extra("tiny", "gradcam", "reward")


def test_films_without_a_prediction_read_as_nan(results):
    assert results.predicted("tiny").tolist() == [True] * 5 + [False]
    assert np.isnan(results.logits("tiny")[5]).all()
    assert np.isnan(results.affine("tiny")[5]).all()
    assert results.predicted("vit").tolist() == [True] + [False] * 5


def test_without_a_link_table_films_have_no_names(results):
    private_path(results.path).unlink()
    assert results.private() is None
    assert results.model_sources() == {}
    with pytest.raises(UsageError, match="is missing") as error:
        results.paths()
    assert "--images" in error.value.hint


def test_damage_met_while_reading_is_a_sentence(results, store):
    path = store.out.with_name("hurt.h5")
    path.write_bytes(store.out.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["images/view"]
        values = file[f"maps/{results.models()[0]}/gradcam/values"]
        offset = values.id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 0xFF
    path.write_bytes(raw)
    with open_results(path) as hurt:
        with pytest.raises(ResultsError, match=r"hurt\.h5 is damaged"):
            hurt.images()
        with pytest.raises(ResultsError, match=r"hurt\.h5 is damaged"):
            hurt.values("tiny", "gradcam", [0])


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no results file"):
        open_results(tmp_path / "results.h5")
    (tmp_path / "results.h5").write_text("image_id\n")
    with pytest.raises(ResultsError, match="not a results file"):
        Results(tmp_path / "results.h5")


def test_several_readers_at_once_and_a_writer_beside_them(results, store, made):
    with open_results(store.out) as second:
        store.write(made.part([7]), 0)
        pack(store, store.out, truth=None, run={})
        assert len(second.image_ids) == len(results.image_ids) == 6
        assert second.images()["image_id"].tolist() == results.image_ids
    with open_results(store.out) as third:
        assert len(third.image_ids) == 7


def test_its_face(results):
    assert repr(results) == "<Results results.h5: 6 films, 2 models>"

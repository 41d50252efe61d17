from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from cxrx.errors import UsageError
from cxrx.results.importing import import_maps
from cxrx.results.merge import merge
from cxrx.results.pack import pack
from cxrx.results.ragged import _CHUNK
from cxrx.results.reader import open_results
from cxrx.results.verify import verify


@pytest.fixture
def folder(tmp_path):
    """Three maps of two pictures; a name with the separator in it; a file that is none of ours."""
    path = tmp_path / "maps"
    path.mkdir()
    for name, array in arrays().items():
        np.save(path / f"{name}.npy", array)
    (path / "notes.txt").write_text("x")
    np.save(path / "noseparator.npy", np.ones((2, 2)))
    return path


def arrays():
    rng = np.random.default_rng(0)
    return {
        "a__b__Mass": rng.normal(size=(20, 30)),
        "a__b__Effusion": rng.normal(size=(10, 15)).astype(np.float32),
        "c d__Mass": (rng.random((7, 9)) * 255).astype(np.uint8),
    }


def id_of(name):
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def mask(path, name, array):
    path.mkdir(exist_ok=True)
    Image.fromarray((array * 255).astype(np.uint8)).save(path / f"{name}.png")


def test_maps_and_masks_come_back(folder, tmp_path):
    masks = tmp_path / "masks"
    truth = {"a__b__Mass": np.eye(20, 30) > 0, "c d__Mass": np.zeros((70, 90), bool), "zzz__Mass": np.ones((2, 2)) > 0}
    for name, array in truth.items():
        mask(masks, name, array)
    out = import_maps(folder, truth=masks, out=tmp_path / "results.h5")
    assert verify(out) == []
    with open_results(out) as results:
        assert results.image_ids == [id_of("a__b"), id_of("c d")]
        assert results.images()[["rows", "columns"]].values.tolist() == [[20, 30], [70, 90]]
        assert results.private()["relative"].tolist() == ["a__b", "c d"]
        for name, array in arrays().items():
            image, _, finding = name.rpartition("__")
            found = results.maps("imported", image=id_of(image), finding=finding)
            np.testing.assert_array_equal(found, array.astype(np.float32))
        assert results.findings(None, "imported") == ["Effusion", "Mass"]
        assert results.present(None, "imported").tolist() == [[True, True], [False, True]]
        pairs = [(i, f) for i in results.image_ids for f in ("Mass", "Effusion", "Nodule")]
        assert {key: m.shape for key, m in results.maps_of(None, "imported", pairs).items()} == {
            (id_of("a__b"), "Mass"): (20, 30),
            (id_of("a__b"), "Effusion"): (10, 15),
            (id_of("c d"), "Mass"): (7, 9),
        }
        assert results.labels()["Mass"].tolist() == [1, 0]
        assert results.labels()["Effusion"].tolist() == [-2, -2]
        (found,) = results.masks()
        np.testing.assert_array_equal(found.decode(), truth["a__b__Mass"])
        assert results.attrs("imported", "imported")["identity"] == "sha256 of the picture's name"
        assert results.attrs("imported") == {}
        with pytest.raises(UsageError, match="one by one"):
            results.values(None, "imported", [0])
        with pytest.raises(UsageError, match="no map"):
            results.maps("imported", image=id_of("c d"), finding="Effusion")


def test_masks_beside_the_maps_are_found(folder, tmp_path):
    mask(folder, "a__b__Mass", np.eye(20, 30) > 0)
    with open_results(import_maps(folder, out=tmp_path / "results.h5")) as results:
        assert len(results.masks()) == 1
    with open_results(import_maps(folder, out=tmp_path / "two.h5", method="theirs", model="net")) as results:
        assert (results.models(), results.methods()) == (["net"], ["theirs"])


def test_a_table_of_boxes(folder, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("image,finding,x,y,width,height\na__b.png,Mass,2,3,10,12\nother.png,Mass,0,0,5,5\n")
    with open_results(import_maps(folder, truth=table, out=tmp_path / "results.h5")) as results:
        assert results.boxes().values.tolist() == [[id_of("a__b"), "Mass", 2, 3, 10, 12]]


def test_boxes_that_reach_beyond_the_map_tell_that_it_is_too_small(folder, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("image,finding,x,y,width,height\na__b,Mass,200,3,10,12\n")
    with pytest.raises(UsageError, match="beyond its map"):
        import_maps(folder, truth=table, out=tmp_path / "results.h5")
    assert not (tmp_path / "results.h5").exists()


def test_without_truth(folder, tmp_path):
    with open_results(import_maps(folder, out=tmp_path / "results.h5")) as results:
        assert results.boxes().empty
        assert (results.labels() == -2).all(axis=None)


def test_what_cannot_be_imported(folder, tmp_path):
    out = tmp_path / "results.h5"
    with pytest.raises(UsageError, match="not a folder"):
        import_maps(tmp_path / "nowhere", out=out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no maps"):
        import_maps(tmp_path / "empty", out=out)
    out.write_bytes(b"")
    with pytest.raises(UsageError, match="exists"):
        import_maps(folder, out=out)
    out.unlink()
    for array in (np.ones(3), np.ones((2, 2, 2)), np.ones((0, 2)), np.array([["a"]]), np.ones((2, 2)) * 1j):
        np.save(folder / "x__Mass.npy", array)
        with pytest.raises(UsageError, match=r"x__Mass\.npy is not a map"):
            import_maps(folder, out=out)
    np.save(folder / "x__Mass.npy", np.array([[None]]), allow_pickle=True)
    with pytest.raises(UsageError, match="not a NumPy array"):
        import_maps(folder, out=out)
    (folder / "x__Mass.npy").unlink()
    mask(folder, "a__b__Mass", np.ones((3, 3)) > 0)
    mask(folder, "a__b__Effusion", np.ones((4, 3)) > 0)
    with pytest.raises(UsageError, match="another size"):
        import_maps(folder, out=out)
    (folder / "a__b__Mass.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="not a mask"):
        import_maps(folder, out=out)


def test_maps_larger_than_a_chunk_lie_where_they_should(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    rng = np.random.default_rng(1)
    sizes = {"a": (600, 700), "b": (3, 3), "c": (512, 512), "d": (1, _CHUNK // 2)}
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in sizes.items()}
    for name, array in made.items():
        np.save(folder / f"{name}__Mass.npy", array)
    with open_results(import_maps(folder, out=tmp_path / "results.h5")) as results:
        for name, array in made.items():
            np.testing.assert_array_equal(results.maps("imported", image=id_of(name), finding="Mass"), array)


def test_imported_files_merge_and_live_beside_others(folder, tmp_path, store, made):
    more = tmp_path / "more"
    more.mkdir()
    np.save(more / "e__Mass.npy", np.full((5, 5), 7.0))
    first, second = import_maps(folder, out=tmp_path / "a.h5"), import_maps(more, out=tmp_path / "b.h5")
    store.write(made.part([0, 1]), 0)
    pack(store, store.out, truth=None, run={})
    out = tmp_path / "merged.h5"
    merge([first, second, store.out], out)
    store.write(made.part([2]), 2)
    added = type(store)(out)
    store.folder.rename(added.folder)
    pack(added, out, truth=None, run={})
    assert verify(out) == []
    with open_results(out) as results:
        assert len(results.image_ids) == 6
        assert results.maps("imported", "imported", image=id_of("e"), finding="Mass").tolist() == [[7.0] * 5] * 5
        np.testing.assert_array_equal(
            results.maps("imported", "imported", image=id_of("a__b"), finding="Mass"),
            arrays()["a__b__Mass"].astype(np.float32),
        )
    with pytest.raises(UsageError, match="both hold"):
        merge([first, out], tmp_path / "again.h5")

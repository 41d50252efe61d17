from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxrx.errors import UsageError
from cxrx.importing.maps import import_folder, import_maps
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
        with pytest.raises(UsageError, match="each in its own size"):
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
    with pytest.raises(UsageError, match="beyond their map"):
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
    with pytest.raises(UsageError, match="cannot name a method"):
        import_maps(folder, out=out, method="a/b")
    with pytest.raises(UsageError, match="cannot name a model"):
        import_maps(folder, out=out, model="a b")
    with pytest.raises(UsageError, match=r"there is no none\.csv"):
        import_maps(folder, truth=tmp_path / "none.csv", out=out)
    assert not out.exists()


@pytest.mark.parametrize(
    "array",
    [np.ones(3), np.ones((2, 2, 2)), np.ones((0, 2)), np.array([["a"]]), np.ones((2, 2)) * 1j, np.array([[None]])],
    ids=["1d", "3d", "empty", "text", "complex", "object"],
)
def test_an_array_that_is_no_map_is_left_out(folder, tmp_path, array):
    np.save(folder / "x__Mass.npy", array, allow_pickle=True)
    report = import_folder(folder, out=tmp_path / "results.h5")
    assert report.maps == {"imported": 3}
    assert "1 files are no two-dimensional arrays of real numbers and were left out (x__Mass.npy)" in report.problems
    alone = tmp_path / "alone"
    alone.mkdir()
    (folder / "x__Mass.npy").rename(alone / "x__Mass.npy")
    with pytest.raises(UsageError, match=r"holds no maps: 1 files are no two-dimensional"):
        import_maps(alone, out=tmp_path / "other.h5")


@pytest.mark.parametrize("shape", [(1, 4, 5), (4, 5, 1), (1, 1, 4, 5)])
def test_axes_of_length_one_do_not_matter(tmp_path, shape):
    folder = tmp_path / "maps"
    folder.mkdir()
    array = np.arange(20.0).reshape(shape)
    np.save(folder / "a__Mass.npy", array)
    np.save(folder / "b__Mass.npy", np.ones((1, 5)))
    with open_results(import_maps(folder, out=tmp_path / "results.h5")) as results:
        np.testing.assert_array_equal(results.maps("imported", image=id_of("a"), finding="Mass"), array.reshape(4, 5))
        assert results.maps("imported", image=id_of("b"), finding="Mass").shape == (1, 5)


def test_maps_that_point_nowhere_are_told_and_kept(folder, tmp_path):
    np.save(folder / "n__Mass.npy", np.array([[1.0, np.nan]]))
    np.save(folder / "i__Mass.npy", np.array([[1.0, 1e300]]))  # no single precision number
    np.save(folder / "k__Mass.npy", np.full((3, 3), 0.2))
    report = import_folder(folder, out=tmp_path / "results.h5")
    assert "2 maps hold NaN or infinity, and will count as misses (i__Mass.npy, n__Mass.npy)" in report.problems
    assert "1 maps are constant and point nowhere, and will count as misses (k__Mass.npy)" in report.problems
    assert report.maps == {"imported": 6}
    assert verify(report.path) == []


def test_pickles_are_never_read(folder, tmp_path):
    (folder / "a__b_Mass_map.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    problems = import_folder(folder, out=tmp_path / "results.h5").problems
    assert any(text.startswith("1 pickles were not read, as they can run any code") for text in problems)


def test_archives_of_arrays_are_told(folder, tmp_path):
    np.savez(folder / "x__Mass.npz", np.eye(3))
    problems = import_folder(folder, out=tmp_path / "results.h5").problems
    assert "1 archives of arrays were not read; save each map as .npy (x__Mass.npz)" in problems


def test_a_mask_that_is_none_is_left_out(folder, tmp_path):
    mask(folder, "a__b__Mass", np.ones((3, 3)) > 0)
    mask(folder, "a__b__Effusion", np.ones((4, 3)) > 0)
    (folder / "c d__Mass.png").write_bytes(b"no picture")
    mask(folder, "stranger__Mass", np.ones((3, 3)) > 0)
    report = import_folder(folder, out=tmp_path / "results.h5")
    assert report.marked == 1
    told = "\n".join(report.problems)
    assert (
        "1 masks have another size than their picture (or its other masks) and were left out (a__b__Mass.png)" in told
    )
    assert "1 masks cannot be read as pictures and were left out (c d__Mass.png)" in told
    assert "1 masks are of pictures without a map and were left out (stranger__Mass.png)" in told
    assert "1 mapped pictures are unknown to maps, so their maps cannot be scored (c d)" in told


def test_masks_of_other_pictures_only(folder, tmp_path):
    masks = tmp_path / "masks"
    mask(masks, "a-b__Mass", np.ones((3, 3)) > 0)
    with pytest.raises(UsageError, match="speaks of none of the 2 mapped pictures") as caught:
        import_maps(folder, truth=masks, out=tmp_path / "results.h5")
    assert "masks has a-b__Mass.png" in caught.value.hint
    mask(folder, "a-b__Mass", np.ones((3, 3)) > 0)  # beside the maps nobody asked for them
    assert import_folder(folder, out=tmp_path / "results.h5").marked == 0


def test_a_folder_a_method(tmp_path):
    folder, rng = tmp_path / "maps", np.random.default_rng(0)
    made = {}
    for method, side in (("gradcam", 7), ("lime", 20)):
        (folder / method).mkdir(parents=True)
        for image in ("a", "b"):
            made[method, image] = rng.random((side, side + 1))
            np.save(folder / method / f"{image}__Mass.npy", made[method, image])
    (folder / "notes").mkdir()
    (folder / ".hidden").mkdir()
    np.save(folder / ".hidden" / "a__Mass.npy", np.ones((2, 2)))
    mask(folder, "a__Mass", np.eye(40, 60) > 0)
    report = import_folder(folder, out=tmp_path / "results.h5", model="net")
    assert report.maps == {"gradcam": 2, "lime": 2}
    assert (report.pictures, report.marked) == (2, 1)
    assert verify(report.path) == []
    with open_results(report.path) as results:
        assert results.methods("net") == ["gradcam", "lime"]
        assert results.images()[["rows", "columns"]].values.tolist() == [[40, 60], [20, 21]]
        for (method, image), values in made.items():
            found = results.maps(method, image=id_of(image), finding="Mass")
            np.testing.assert_array_equal(found, values.astype(np.float32))
    with pytest.raises(UsageError, match=r"name the methods \(gradcam, lime\)"):
        import_maps(folder, out=tmp_path / "other.h5", method="mine")
    np.save(folder / "a__Mass.npy", np.eye(3))
    assert import_folder(folder, out=tmp_path / "other.h5", method="mine").maps == {"mine": 1, "gradcam": 2, "lime": 2}
    with pytest.raises(UsageError, match="maps and a folder lime of maps"):
        import_maps(folder, out=tmp_path / "third.h5", method="lime")
    (folder / "lime").rename(folder / "lime 2")
    with pytest.raises(UsageError, match="'lime 2' cannot name a method"):
        import_maps(folder, out=tmp_path / "third.h5")


@pytest.mark.parametrize("header", ["rows,columns", "Image_Height,Image_Width", "height,width"])
def test_a_column_tells_the_size_of_the_picture(folder, tmp_path, header):
    """Maps of 20 x 30 over a picture of 200 x 310; the box lies where no map pixel does."""
    table = tmp_path / "boxes.csv"
    table.write_text(f"path,finding,x,y,w,h,{header}\nscans/a__b.png,Mass,250,150,40,30,200,310\n")
    report = import_folder(folder, truth=table, out=tmp_path / "results.h5")
    with open_results(report.path) as results:
        assert results.images()[["rows", "columns"]].values.tolist() == [[200, 310], [7, 9]]
        assert len(results.boxes()) == 1
    assert "1 mapped pictures are unknown to boxes.csv, so their maps cannot be scored (c d)" in report.problems


def test_the_columns_of_a_box_are_no_size(folder, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("path,finding,x,y,width,height\na__b,Mass,2,3,10,12\n")
    with open_results(import_maps(folder, truth=table, out=tmp_path / "results.h5")) as results:
        assert results.images()[["rows", "columns"]].values.tolist() == [[20, 30], [7, 9]]


def test_boxes_outside_the_picture_are_told_and_the_rest_is_kept(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    lines = ["path,finding,x,y,w,h"]
    for i in range(20):
        np.save(folder / f"p{i:02d}__Mass.npy", np.eye(20, 30))
        lines.append(f"p{i:02d},Mass,2,3,5,{90 if i == 4 else 5}")
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    report = import_folder(folder, truth=tmp_path / "boxes.csv", out=tmp_path / "results.h5")
    assert report.marked == 19
    assert any(text.startswith("1 boxes reach beyond their map") and "(p04)" in text for text in report.problems)
    sized = "\n".join(line + (",rows,columns" if not i else ",20,30") for i, line in enumerate(lines))
    sized = sized.replace("p07,Mass,2,3", "p07,Mass,400,3")
    (tmp_path / "boxes.csv").write_text(sized)
    report = import_folder(folder, truth=tmp_path / "boxes.csv", out=tmp_path / "sized.h5")
    assert report.marked == 19
    assert "1 boxes reach beyond their picture; what lies outside does not count (p04)" in report.problems
    assert "1 boxes lie outside their picture and were left out (p07)" in report.problems


def test_boxes_of_nih_lie_on_their_own_grid(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    np.save(folder / "00001369_000__Cardiomegaly.npy", np.eye(7))
    np.save(folder / "00001369_001__Cardiomegaly.npy", np.eye(7))
    table = tmp_path / "BBox_List_2017.csv"
    table.write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00001369_000.png,Cardiomegaly,337.0,276.3,553.7,386.8,,,\n"
    )
    with open_results(import_maps(folder, truth=table, out=tmp_path / "results.h5")) as results:
        sizes = dict(zip(results.images()["image_id"], results.images()["rows"], strict=True))
        assert sizes == {id_of("00001369_000"): 1024, id_of("00001369_001"): 7}
        assert results.boxes()["image_id"].tolist() == [id_of("00001369_000")]
        assert results.images()["patient"].nunique() == 1  # the name tells it


CHEST = "patient64541_study1_view1_frontal"


@pytest.mark.parametrize("kind", ["segmentations", "annotations"])
def test_truth_of_chexlocalize(tmp_path, kind):
    folder = tmp_path / "maps"
    folder.mkdir()
    np.save(folder / f"{CHEST}__Airspace Opacity.npy", np.eye(9, 7))
    np.save(folder / f"{CHEST.replace('study1', 'study2')}__Edema.npy", np.eye(9, 7))
    truth = np.zeros((30, 20), bool)
    truth[5:12, 3:9] = True
    runs = np.flatnonzero(np.diff(np.concatenate([[0], truth.ravel(order="F"), [0]])))
    counts = [int(n) for n in np.diff([0, *runs, truth.size])]
    if kind == "segmentations":
        film = {"Airspace Opacity": {"size": [30, 20], "counts": counts}, "Edema": {"size": [30, 20], "counts": [600]}}
    else:
        film = {"img_size": [30, 20], "Airspace Opacity": [[[3, 5], [8, 5], [8, 11], [3, 11]]]}
    path = tmp_path / f"gt_{kind}_val.json"
    path.write_text(json.dumps({CHEST: film}))
    report = import_folder(folder, truth=path, out=tmp_path / "results.h5")
    with open_results(report.path) as results:
        (found,) = results.masks()
        assert (found.image_id, found.finding) == (id_of(CHEST), "Lung Opacity")
        np.testing.assert_array_equal(found.decode(), truth)
        row = results.images().set_index("image_id").loc[id_of(CHEST)]
        assert (row["rows"], row["columns"]) == (30, 20)
        assert results.images()["patient"].nunique() == 1
    path.rename(tmp_path / "gradcam_segmentations.json")
    with pytest.raises(UsageError, match=r"gradcam_segmentations\.json is not read") as caught:
        import_maps(folder, truth=tmp_path / "gradcam_segmentations.json", out=tmp_path / "other.h5")
    assert "gt_segmentations" in caught.value.hint


def test_patients_of_the_table_are_kept_together(folder, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("path,patient,finding,x,y,w,h\na__b,7,Mass,2,3,5,5\nc d,7,Mass,1,1,3,3\n")
    with open_results(import_maps(folder, truth=table, out=tmp_path / "results.h5")) as results:
        assert set(results.images()["patient"]) == {min(results.image_ids)}
        assert results.private()["patient"].tolist() == ["7", "7"]
    assert b"a__b" not in (tmp_path / "results.h5").read_bytes()


def test_a_misspelt_finding_is_told(folder, tmp_path):
    np.save(folder / "a__b__Efusion.npy", np.eye(4))
    table = tmp_path / "boxes.csv"
    table.write_text("path,finding,x,y,w,h\na__b,Mass,2,3,5,5\na__b,Pleural Effusion,2,3,5,5\n")
    problems = import_folder(folder, truth=table, out=tmp_path / "results.h5").problems
    assert "1 findings of the maps are marked nowhere in boxes.csv (Efusion; did you mean Effusion?)" in problems
    table.write_text("path,finding,x,y,w,h\nzz,Mass,2,3,5,5\n")
    with pytest.raises(UsageError, match=r"boxes\.csv speaks of none of the 2 mapped pictures") as caught:
        import_maps(folder, truth=table, out=tmp_path / "other.h5")
    assert "zz" in caught.value.hint


def test_masks_and_a_table_in_one_folder_are_joined(folder, tmp_path):
    truth = tmp_path / "truth"
    mask(truth, "a__b__Mass", np.eye(20, 30) > 0)
    (truth / "boxes.csv").write_text("path,patient,finding,x,y,w,h\na__b,1,Effusion,2,3,5,5\nc d,2,Mass,1,1,3,3\n")
    with open_results(import_maps(folder, truth=truth, out=tmp_path / "results.h5")) as results:
        assert len(results.masks()) == 1
        assert results.boxes()["finding"].tolist() == ["Effusion", "Mass"]
        assert results.labels().loc[:, ["Mass", "Effusion"]].values.tolist() == [[1, 1], [1, -2]]


def test_pictures_at_hand_tell_size_and_identity(folder, films, tmp_path):
    """Ten real pictures of 48 x 40; maps of three of them, boxes in the pixels of the pictures."""
    maps = tmp_path / "own"
    maps.mkdir()
    for name in ("film000", "film001", "gone"):
        np.save(maps / f"{name}__Mass.npy", np.eye(6, 5))
    (films / "film003.png").write_bytes((films / "film002.png").read_bytes())
    (films / "film004.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    for name in ("film002", "film003", "film004"):
        np.save(maps / f"{name}__Mass.npy", np.eye(6, 5))
    table = tmp_path / "boxes.csv"
    table.write_text("path,finding,x,y,w,h\nfilm000.png,Mass,30,20,8,20\nfilm001.png,Mass,2,20,8,20\n")
    report = import_folder(maps, truth=table, out=tmp_path / "results.h5", images=films)
    assert verify(report.path) == []
    digest = hashlib.sha256((films / "film000.png").read_bytes()).hexdigest()
    with open_results(report.path) as results:
        row = results.images().set_index("image_id").loc[digest[:16]]
        assert (row["rows"], row["columns"]) == (48, 40)
        assert results.maps("imported", image=digest[:16], finding="Mass").shape == (6, 5)
        assert results.paths()[digest[:16]] == (films / "film000.png", "")
        assert len(results.boxes()) == 2
        assert results.attrs("imported", "imported")["identity"].endswith("where it was found, else of its name")
        assert id_of("gone") in results.image_ids
    told = "\n".join(report.problems)
    assert "1 mapped pictures were not found among the pictures (gone)" in told
    assert "1 pictures have the same bytes as another, and are told apart by their names (film003)" in told
    assert "1 pictures could not be read: " in told
    mask(maps, "film000__Mass", np.eye(6, 5) > 0)
    problems = import_folder(maps, out=tmp_path / "masked.h5", images=films).problems
    assert any("another size than their picture" in text and "film000__Mass.png" in text for text in problems)
    with pytest.raises(UsageError, match="does not exist"):
        import_maps(folder, out=tmp_path / "other.h5", images=tmp_path / "nowhere")


def test_force_writes_over_and_leaves_no_names(folder, tmp_path):
    out = tmp_path / "results.h5"
    import_maps(folder, out=out)
    (folder / "c d__Mass.npy").unlink()
    with pytest.raises(UsageError, match="exists") as caught:
        import_maps(folder, out=out)
    assert "--force" in caught.value.hint
    (tmp_path / "failures.csv").write_text("file\nname-of-a-film.dcm\n")
    import_maps(folder, out=out, force=True)
    with open_results(out) as results:
        assert results.private()["relative"].tolist() == ["a__b"]
    assert not (tmp_path / "failures.csv").exists()
    with pytest.raises(UsageError, match="exists"):
        import_maps(folder, out=tmp_path, force=True)


def test_what_was_left_out_is_logged(folder, tmp_path, caplog):
    import_maps(folder, out=tmp_path / "results.h5")
    assert any("noseparator.npy" in message for message in caplog.messages)


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


# ---------------------------------------------------------------------------------------------------------------------
# Damaged and hostile files: each is named and counted, and the others are imported


def npy(header, data=b"", version=(1, 0)):
    """Write an array file by hand."""
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + data


HOSTILE = {
    "empty": b"",
    "no magic": b"nothing",
    "magic only": b"\x93NUMPY",
    "cut header": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}")[:30],
    "cut data": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)}", bytes(12)),
    "huge shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999, 999999)}", bytes(16)),
    "endless shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 40 + b", 2)}", bytes(16)),
    "negative shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -2)}", bytes(16)),
    "words in the shape": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 2)}", bytes(16)),
    "no shape": npy(b"{'descr': '<f4', 'fortran_order': False}", bytes(16)),
    "no such type": npy(b"{'descr': '<z9', 'fortran_order': False, 'shape': (2, 2)}", bytes(16)),
    "type of no size": npy(b"{'descr': '|V0', 'fortran_order': False, 'shape': (2, 2)}", bytes(16)),
    "objects": npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}", b"cos\nsystem\n(S'false'\ntR."),
    "code": npy(b"__import__('os').abort()", bytes(16)),
    "brackets": npy(b"(" * 9000, bytes(16)),
    "long header": npy(b"", b" ", (2, 0))[:8] + b"\xff\xff\xff\xff" + b" " * 99,
    "unknown version": b"\x93NUMPY" + bytes((9, 9)) + bytes(20),
    "zip": b"PK\x03\x04" + bytes(40),
    "pickle": b"\x80\x04cos\nsystem\n",
    "nul": bytes(300),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_map_is_named_and_the_others_are_imported(folder, tmp_path, name):
    (folder / "x__Mass.npy").write_bytes(HOSTILE[name])
    report = import_folder(folder, out=tmp_path / "results.h5")
    assert report.maps == {"imported": 3}
    assert "1 files are no two-dimensional arrays of real numbers and were left out (x__Mass.npy)" in report.problems


def test_a_sparse_map_of_gigabytes_is_not_allocated(folder, tmp_path):
    with (folder / "x__Mass.npy").open("wb") as file:
        file.write(npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (30000, 30000)}"))
        file.truncate(8 * 30000**2 + 200)
    assert import_folder(folder, out=tmp_path / "results.h5").maps == {"imported": 3}


def png_of(rows, columns):
    """Return a PNG that says it is so large, and is not."""
    head = struct.pack(">IIBBBBB", columns, rows, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", png_of(20, 30), png_of(60_000, 60_000), png_of(9_500, 9_500), bytes(99)]
)
def test_a_damaged_mask_is_named(folder, tmp_path, content):
    (folder / "c d__Mass.png").write_bytes(content)
    report = import_folder(folder, out=tmp_path / "results.h5")
    assert "1 masks cannot be read as pictures and were left out (c d__Mass.png)" in report.problems
    assert report.maps == {"imported": 3}


CODED = [
    {"size": [2**31, 2**31], "counts": "0"},
    {"size": [7, 9], "counts": [2**62, 2**62, 2**62, 2**62 + 63]},  # adds up to 63 where it wraps
    {"size": [7, 9], "counts": [[63]]},
    {"size": [7, 9], "counts": "ooooooooooooo0"},
    {"size": [7, 9], "counts": "é"},
    {"size": [7, 9], "counts": None},
    {"size": "x", "counts": [63]},
    {"size": [float("inf"), 1], "counts": [1]},
    {"counts": [63]},
    17,
]


@pytest.mark.parametrize("coded", CODED, ids=str)
def test_a_damaged_encoding_is_counted_and_the_others_are_kept(folder, tmp_path, coded):
    good = {"size": [7, 9], "counts": [0, 9, 54]}
    truth = tmp_path / "gt_segmentations_val.json"
    truth.write_text(json.dumps({"c d": {"Mass": good, "Edema": coded}, "a__b": 3}))
    report = import_folder(folder, truth=truth, out=tmp_path / "results.h5")
    assert report.marked == 1
    told = "\n".join(report.problems)
    assert "masks that are no COCO encoding were left out (1)" in told
    assert "films whose entry is not of the form of CheXlocalize were left out (1)" in told


@pytest.mark.parametrize(
    "outline",
    [[[1e300, 1], [2, 2], [3, 1]], [[float("nan"), 1], [2, 2]], [["a", "b"], [1, 2]], [[1, 2, 3], [4, 5]], 3, "ab"],
)
def test_a_damaged_outline_is_counted(folder, tmp_path, outline):
    truth = tmp_path / "gt_annotations_val.json"
    good = [[[1, 1], [5, 1], [5, 5]]]
    truth.write_text(json.dumps({"c d": {"img_size": [7, 9], "Mass": good, "Edema": [outline]}}))
    report = import_folder(folder, truth=truth, out=tmp_path / "results.h5")
    assert report.marked == 1
    assert any("polygons that cannot be drawn were left out (1)" in text for text in report.problems)


def test_boxes_in_fractions_are_turned_into_pixels(folder, tmp_path):
    """The maps have the size of their pictures, 20 x 30, unless a column says another."""
    table = tmp_path / "boxes.csv"
    table.write_text("path,finding,x,y,w,h\na__b.png,Mass,0.5,0.25,0.5,0.25\n")
    with open_results(import_maps(folder, truth=table, out=tmp_path / "results.h5")) as results:
        assert results.boxes()[["x", "y", "width", "height"]].to_numpy().tolist() == [[15, 5, 15, 5]]
    table.write_text("path,finding,x,y,w,h,rows,columns\na__b.png,Mass,0.5,0.25,0.5,0.25,200,300\n")
    with open_results(import_maps(folder, truth=table, out=tmp_path / "other.h5")) as results:
        assert results.boxes()[["x", "y", "width", "height"]].to_numpy().tolist() == [[150, 50, 150, 50]]


def test_names_that_are_not_text(folder, tmp_path):
    np.save(tmp_path / "x.npy", np.eye(4))
    (tmp_path / "x.npy").rename(os.fsdecode(os.fsencode(folder) + b"/\xff__Mass.npy"))
    with open_results(import_maps(folder, out=tmp_path / "results.h5")) as results:
        assert len(results.images()) == 3

from __future__ import annotations

from pathlib import Path

import pytest

from cxrx.datasets import discover, read_truth
from cxrx.datasets.specs import BUILTIN_DATASETS
from cxrx.errors import UsageError
from cxrx.specs import Box

REAL = Path(__file__).parents[3] / "shared" / "realdata"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real films are not here")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@real
@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("", "nih_cxr14/images/"),
        ("nih_cxr14", "images/"),
        ("nih_cxr14/images", ""),
        ("nih_cxr14/images/00026911_000.png", ""),
    ],
)
def test_real_tables_are_found_from_anywhere(given, prefix):
    truth = discover([REAL / given])
    assert sorted(path.name for path in truth.tables) == [
        "BBox_List_2017_subset.csv",
        "Data_Entry_2017_v2020_subset.csv",
    ]
    assert truth.name == "nih-chestxray14"
    assert truth.problems == []
    assert len(truth) == 60
    film = truth.truth(prefix + "00026911_000.png")
    assert film is not None
    assert film.labels["Infiltration"] == 1
    assert film.labels["Hernia"] == 0
    assert [box.finding for box in film.boxes] == ["Infiltration"]
    assert film.boxes[0].x == pytest.approx(555.885714285714)
    assert film.patient == "26911"
    assert truth.truth("dicom/RG1_J2KI.dcm") is None


@real
def test_real_films_all_have_labels_and_twelve_boxes():
    truth = discover([REAL])
    films = [truth.truth(path.relative_to(REAL).as_posix()) for path in sorted(REAL.rglob("*.png"))]
    assert sum(film is not None and len(film.labels) == 14 for film in films) == 60
    assert sum(len(film.boxes) for film in films if film) == 12


def test_same_base_name_in_two_folders(tmp_path):
    for folder, label in (("a", 1), ("b", 0)):
        write(tmp_path / folder / "truth.csv", f"path,Mass\nfilm.png,{label}\n")
    truth = discover([tmp_path])
    assert truth.truth("a/film.png").labels == {"Mass": 1}
    assert truth.truth("b/film.png").labels == {"Mass": 0}


def test_one_table_with_folders_in_its_paths(tmp_path):
    write(tmp_path / "truth.csv", "path,Mass\nx/film.png,1\ny/film.png,0\n")
    truth = discover([tmp_path])
    assert truth.truth("x/film.png").labels == {"Mass": 1}
    assert truth.truth("y/film.png").labels == {"Mass": 0}
    assert truth.truth("film.png") is None  # two of that name
    (tmp_path / "x").mkdir()
    nested = discover([tmp_path / "x"])
    assert nested.truth("film.png").labels == {"Mass": 1}  # the table one level up, its path seen from here


def test_labels_and_boxes_of_one_film_meet(tmp_path):
    write(tmp_path / "truth.csv", "path,Mass,Nodule\nimages/f.dcm,0,\n")
    write(tmp_path / "boxes.csv", "image,finding,x,y,w,h\nf.png,Mass,1,2,3,4\nf.png,Nodule,5,6,7,8\n")
    film = discover([tmp_path]).truth("images/f.dcm")
    assert film.labels == {"Mass": 0, "Nodule": 1}  # what a label table states wins
    assert film.boxes == (Box("Mass", 1, 2, 3, 4), Box("Nodule", 5, 6, 7, 8))


def test_uid_names_keep_their_dots(tmp_path):
    write(tmp_path / "t.csv", "image,Mass\n1.2.3.4,1\n1.2.3.5,0\n")
    truth = discover([tmp_path])
    assert truth.truth("sub/1.2.3.4.dcm").labels == {"Mass": 1}
    assert truth.truth("1.2.3.5").labels == {"Mass": 0}
    assert truth.truth("1.2.3.dcm") is None


def test_hidden_folders_and_parts_are_not_searched(tmp_path):
    write(tmp_path / ".old" / "truth.csv", "path,Mass\nf.png,1\n")
    write(tmp_path / "results.h5.parts" / "truth.csv", "path,Mass\nf.png,1\n")
    truth = discover([tmp_path])
    assert (len(truth), truth.name, truth.findings) == (0, "", ())
    assert truth.truth("f.png") is None


def test_read_truth_counts_what_met_nothing(tmp_path):
    truth = read_truth(write(tmp_path / "t.csv", "path,Mass\na.png,1\nb.png,0\n"))
    assert len(truth) == 2
    assert truth.unmatched(["x/a.png", "c.png"]) == 1


def test_read_truth_says_what_fits(tmp_path):
    with pytest.raises(UsageError, match="there is no"):
        read_truth(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="no table of labels or boxes"):
        read_truth(write(tmp_path / "x.csv", "a,b\n1,2\n"))


def test_the_layout_sniffs_its_own_folder(tmp_path):
    (spec,) = (spec for spec in BUILTIN_DATASETS if spec.name == "tables")
    assert not spec.sniff(tmp_path)
    write(tmp_path / "truth.csv", "path,Mass\nf.png,1\n")
    assert spec.sniff(tmp_path)
    assert spec.open(tmp_path).truth("f.png").labels == {"Mass": 1}

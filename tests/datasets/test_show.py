"""What ``cxrx datasets`` says: counts, splits, and a sentence on everything that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from typer.testing import CliRunner

from cxrx.cli import app
from cxrx.datasets import open_dataset
from cxrx.datasets.fit import size_of
from cxrx.datasets.survey import survey
from cxrx.errors import EXIT_USAGE, UsageError

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "nih_cxr14"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real films are not here")

NIH_HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"


def show(*words):
    return CliRunner().invoke(app, ["datasets", *map(str, words)])


@pytest.fixture
def folder(lay):
    """Six films of four patients, a finding of every kind, two boxes."""
    rows = ["0,1,,7,PA", "1,0,,7,PA", "0,-1,1,8,AP", "0,0,1,8,", "1,,1,9,", "0,0,1,10,"]
    labels = "".join(f"f{n}.png,{row}\n" for n, row in enumerate(rows))
    return lay(
        {
            "labels.csv": f"path,Mass,Nodule,Hernia,patient,view\n{labels}",
            "boxes.csv": "path,finding,x,y,w,h\nf1.png,Mass,1,2,3,4\nf4.png,Mass,5,5,4,4\n",
        }
        | {f"images/f{n}.png": (20, 16) for n in range(6)}
    )


def test_counts_and_prevalence(folder):
    found = survey(open_dataset(folder))
    assert (found["name"], found["films"], found["labelled"], found["patients"]) == ("tables", 6, 6, 4)
    assert found["views"] == {"AP": 1, "PA": 2, "unknown": 3}
    counts = {row.pop("finding"): tuple(row.values()) for row in found["findings"]}
    assert counts["Mass"] == (2, 4, 0, 0, pytest.approx(2 / 6), 2, 0)
    assert counts["Nodule"] == (1, 3, 1, 1, pytest.approx(1 / 4), 0, 0)
    assert counts["Hernia"] == (4, 0, 0, 2, 1.0, 0, 0)
    assert (found["boxes"], found["boxed_films"], found["masks"]) == (2, 2, 0)
    sizes = [found["splits"][name] for name in ("train", "valid", "test")]
    assert sum(size["films"] for size in sizes) == 6
    assert sum(size["patients"] for size in sizes) == 4
    assert found["problems"] == []


def test_shown_on_the_command_line(folder):
    told = show("show", folder)
    assert told.exit_code == 0
    assert "tables: 6 films, 6 with labels or boxes, 4 patients" in told.stdout
    assert told.stdout.splitlines()[4].split() == [
        "finding",
        "positive",
        "negative",
        "uncertain",
        "unknown",
        "prevalence",
        "boxes",
        "masks",
    ]
    assert ["Mass", "2", "4", "0", "0", "0.333", "2", "0"] in [line.split() for line in told.stdout.splitlines()]
    assert told.stderr == ""
    assert json.loads(show("show", folder, "--json").stdout) == survey(open_dataset(folder))


def test_layouts_are_listed():
    assert {"nih-chestxray14", "mimic-cxr-jpg", "class-folders", "tables"} <= set(show().stdout.split())
    assert {row["name"] for row in json.loads(show("--json").stdout)} >= {"siim-acr", "vindr-cxr"}


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("from cxrx.registry import load; load()", ("numpy", "pydicom", "PIL", "torch", "h5py")),
        ("import cxrx.datasets.folder, cxrx.datasets.survey", ("torch", "h5py", "pandas", "scipy", "PIL")),
    ],
)
def test_listing_layouts_imports_nothing_and_reading_them_little(code, forbidden):
    code = f"{code}\nimport sys\nprint(*(name for name in {forbidden} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_nothing_that_was_shown_names_a_film_or_patient(lay):
    rows = "SECRET_1.png,Mass,0,MARY,1,F,PA\nSECRET_1.png,Hernia,0,MARY,1,F,PA\nSECRET_9.png,Nonsense,0,MARY,1,F,PA\n"
    top = lay({"Data_Entry_2017.csv": NIH_HEADER + rows, "SECRET_1.png": (30, 30), "SECRET_2.png": (30, 30)})
    told = show("show", top)
    assert told.exit_code == 0
    assert "SECRET" not in told.output + told.stderr
    assert "MARY" not in told.output + told.stderr


# ---------------------------------------------------------------------------------------------------------------------
# What is wrong with it


def problems(folder):
    return survey(open_dataset(folder))["problems"]


def nih(rows, **files):
    films = {f"images/{row.split(',')[0]}": (1024, 1024) for row in rows}
    return {"Data_Entry_2017.csv": NIH_HEADER + "".join(f"{row}\n" for row in rows)} | films | files


def test_absent_films_and_films_in_no_table(lay):
    top = lay({"t.csv": "path,Mass,patient\na.png,1,1\nb.png,0,2\nc.png,1,3\n", "a.png": (9, 9), "z.png": (9, 9)})
    assert problems(top) == [
        "films that the tables name and that are not in the folder: 2",
        "films of the folder that are in no table: 1",
    ]


def test_tables_whose_films_lie_elsewhere_are_counted(lay):
    found = survey(open_dataset(lay({"t.csv": "path,Mass,patient\na.png,1,1\nb.png,0,2\n"})))
    assert (found["films"], found["labelled"], found["splits"]) == (0, 2, None)
    assert found["findings"][0]["positive"] == 1
    assert found["problems"] == ["none of the 2 films that the tables name is in the folder: their rows are counted"]


def test_a_patient_in_both_published_splits(lay):
    rows = [
        "00000001_000.png,Mass,0,1,50,M,PA",
        "00000001_001.png,Hernia,1,1,51,M,PA",
        "00000002_000.png,Mass,0,2,50,M,PA",
    ]
    lists = {"train_val_list.txt": "00000001_000.png\n00000002_000.png\n", "test_list.txt": "00000001_001.png\n"}
    top = lay(nih(rows) | lists)
    assert (
        "patients with films in more than one published split: 1; they stay in test, else in valid, and are left out "
        "elsewhere"
    ) in problems(top)
    assert open_dataset(top).splits().of[:2] == ("", "test")
    assert survey(open_dataset(top))["splits"]["left out"] == {"films": 1, "patients": 1}


def test_empty_classes(lay):
    (told,) = problems(
        lay({"t.csv": "path,Mass,Nodule,patient\na.png,1,0,1\nb.png,0,-1,2\n", "a.png": (9, 9), "b.png": (9, 9)})
    )
    assert told == "no film is positive for Nodule"


def test_findings_that_nih_does_not_have(lay):
    told = problems(lay(nih(["00000001_000.png,Mass|Pneumotorax,0,1,50,M,PA"])))
    assert "Data_Entry_2017.csv: 'Pneumotorax' is none of the 14 findings (1)" in told
    assert "'Pneumotorax' is no known finding; Pneumothorax is" in told


def test_a_column_that_looks_like_a_slip(lay):
    told = problems(
        lay({"t.csv": "path,Cardiomegally,patient\na.png,1,1\nb.png,0,2\n", "a.png": (9, 9), "b.png": (9, 9)})
    )
    assert told == ["'Cardiomegally' is no known finding; Cardiomegaly is"]


def test_repeated_and_contradicting_rows(lay):
    table = "path,Mass,Nodule,patient\na.png,1,1,1\na.png,0,1,1\nb.png,0,0,2\nb.png,0,0,2\n"
    top = lay({"t.csv": table, "a.png": (9, 9), "b.png": (9, 9)})
    assert problems(top) == [
        "t.csv: rows of a film that had one before (2)",
        "t.csv: labels on which two rows of a film contradict each other were taken as uncertain (1)",
        "no film is positive for Mass",
    ]
    assert open_dataset(top).label_matrix().tolist() == [[-1, 1], [0, 0]]


def test_nih_rows_that_contradict_each_other(lay):
    rows = ["00000001_000.png,Mass,0,1,50,M,PA", "00000001_000.png,No Finding,0,1,50,M,PA"]
    top = lay(nih(rows))
    assert problems(top)[:2] == [
        "Data_Entry_2017.csv: rows of a film that had one before (1)",
        "Data_Entry_2017.csv: rows that contradict an earlier one were left out (1)",
    ]
    assert open_dataset(top).films()[0][1].labels["Mass"] == 1


def test_boxes_outside_and_masks_of_another_size(lay):
    table = "path,finding,x,y,w,h\na.png,Mass,10,10,50,5\na.png,Nodule,-5,1,9,9\na.png,Hernia,2,2,14.6,18.5\n"
    top = lay({"boxes.csv": table, "l.csv": "path,Mass,patient\na.png,1,1\n", "a.png": (20, 16)})
    assert problems(top) == ["films with boxes that reach beyond them: 1"]
    fits = {
        "boxes.csv": "path,finding,x,y,w,h\na.png,Hernia,2,2,14.6,18.5\n",
        "l.csv": "path,Mass,patient\na.png,1,1\n",
    }
    assert problems(lay(fits | {"a.png": (20, 16)}, "fits")) == []  # by half a pixel: rounding
    siim = lay({"train-rle.csv": "ImageId, EncodedPixels\na, 5 5\n", "a.png": (20, 16)}, "siim")
    assert problems(siim)[-1] == "films with masks of another size: 1"


def test_nih_films_made_smaller(lay):
    """Copies at 224 px are common; boxes at 1024 px would lie anywhere on them, and are scaled."""
    boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Mass,10,20,30,40,,,\n"
    files = nih(["00000001_000.png,Mass,0,1,50,M,PA"], **{"BBox_List_2017.csv": boxes})
    assert not any("scaled" in text for text in problems(lay(files)))
    small = problems(lay(files | {"images/00000001_000.png": (224, 224)}, "small"))
    assert small[-1] == "films of another size than what their boxes were drawn on; the boxes were scaled: 1"


def test_sizes_come_from_the_heads_of_files(tmp_path, lay):
    dataset = pydicom.Dataset()
    dataset.Rows, dataset.Columns, dataset.PatientName = 12, 34, "A"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert size_of(tmp_path / "a.dcm") == (12, 34)
    top = lay({"a.png": (7, 9), "b.png": b"nothing", "c.dcm": bytes(128) + b"DICM" + b"\xff" * 40})
    assert [size_of(top / name) for name in ("a.png", "b.png", "c.dcm", "d.png")] == [(7, 9), None, None, None]


def test_patients_that_nobody_tells(lay):
    top = lay({"t.csv": "path,Mass\na.png,1\nb.png,0\n", "a.png": (9, 9), "b.png": (9, 9)})
    assert problems(top) == ["no table names the patients: every film counts as a patient of its own"]


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be used at all: a sentence and exit code 2


@pytest.mark.parametrize(
    ("name", "header", "sentence"),
    [
        ("Data_Entry_2017.csv", "Image Index,Patient ID", "Data_Entry_2017.csv lacks the columns 'finding labels'"),
        ("stage_2_train_labels.csv", "patientId,x,y,width,height", "lacks the columns 'target'"),
        ("train-rle.csv", "ImageId,Mask", "lacks the columns 'encodedpixels'"),
        ("mimic-cxr-2.0.0-split.csv", "dicom_id,split", "lacks the columns 'study id', 'subject id'"),
        ("annotations_train.csv", "image_id,class_name,x_min,y_min,x_max", "'rad id', 'y max'"),
        ("boxes.csv", "path,finding,x,y,w", "lacks the columns 'h' of a table of boxes"),
        ("labels.csv", "Name,Mass,Nodule", "lacks a column that names the films"),
        ("labels.csv", "Finding Labels,Patient ID", "lacks a column that names the films"),
    ],
)
def test_missing_columns_are_named(lay, name, header, sentence):
    top = lay({name: f"{header}\n{','.join('1' for _ in header.split(','))}\n", "a.png": (9, 9)})
    told = show("show", top)
    assert told.exit_code == EXIT_USAGE
    assert sentence in told.stderr
    with pytest.raises(UsageError, match="lacks"):
        open_dataset(top)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.png": (9, 9)}, "nothing in data says what is on its films"),
        ({"notes.csv": "one,two\n1,2\n", "a.png": (9, 9)}, "nothing in data says what is on its films"),
        ({"t.csv.gz": b"\x1f\x8bnot really", "a.png": (9, 9)}, "nothing in data says what is on its films"),
        ({"train_list.txt": "a.png\n", "a.png": (9, 9)}, "nothing in data says what is on its films"),
    ],
)
def test_folders_about_which_nothing_is_known(lay, files, sentence):
    told = show("show", lay(files))
    assert told.exit_code == EXIT_USAGE
    assert sentence in told.stderr
    assert "cxrx datasets" in told.stderr


def test_no_folder(lay):
    top = lay({"t.csv": "path,Mass\na.png,1\n"})
    assert show("show", top / "none").exit_code == EXIT_USAGE
    assert "is no folder" in show("show", top / "t.csv").stderr


def test_unknown_findings_of_a_matrix(folder):
    dataset = open_dataset(folder)
    with pytest.raises(UsageError, match="knows no finding 'Noodle'") as caught:
        dataset.label_matrix(["Mass", "Noodle"])
    assert caught.value.hint == "did you mean Nodule?"


# ---------------------------------------------------------------------------------------------------------------------
# Real films


@real
def test_the_sixty_real_films():
    found = survey(open_dataset(REAL))
    assert (found["name"], found["films"], found["labelled"]) == ("nih-chestxray14", 60, 60)
    assert (found["boxes"], found["boxed_films"], found["masks"]) == (12, 12, 0)
    assert found["views"] == {"AP": 27, "PA": 33}
    positive = {row["finding"]: row["positive"] for row in found["findings"]}
    assert min(positive.values()) == 5
    assert len(positive) == 14
    assert all(row["positive"] + row["negative"] == 60 for row in found["findings"])
    matrix = open_dataset(REAL).label_matrix()
    assert (matrix.sum(axis=1) == 0).sum() == 10  # "No Finding"
    assert found["problems"] == []

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrx.datasets.names import NIH_FINDINGS, canonical
from cxrx.datasets.sheet import film_name
from cxrx.datasets.tables import kind_of, read_table
from cxrx.specs import Box


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def test_nih_labels_name_the_present_and_leave_the_rest_absent(tmp_path):
    rows = "00000100_000.png,Atelectasis|Pleural_Thickening,0,100,60,M,PA,2500,2048,0.171,0.171\n"
    rows += "00000101_000.png,No Finding,0,101,61,F,AP,2500,2048,0.171,0.171\n"
    read = read_table(table(tmp_path, f"{NIH_HEADER}\n{rows}"))
    assert read is not None
    assert read.kind == "nih-labels"
    assert read.findings == NIH_FINDINGS
    film = read.films["00000100_000.png"]
    assert {name for name, value in film.labels.items() if value == 1} == {"Atelectasis", "Pleural_Thickening"}
    assert sum(film.labels.values()) == 2
    assert len(film.labels) == 14
    assert (film.patient, film.view) == ("100", "PA")
    assert set(read.films["00000101_000.png"].labels.values()) == {0}


def test_nih_boxes_have_more_header_cells_than_names(tmp_path):
    text = "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,555.8857,235.24,206.9672,313.15,,,\n"
    read = read_table(table(tmp_path, text))
    assert read is not None
    assert read.films["a.png"].boxes == (Box("Infiltration", 555.8857, 235.24, 206.9672, 313.15),)
    assert read.films["a.png"].labels == {"Infiltration": 1}  # of the others it says nothing


@pytest.mark.parametrize(
    "text",
    [
        "path,bytes,sha256\nx.dcm,127290,13d378bf\n",
        "path,bytes\nx.dcm,127290\n",
        "Image Index,prob_Mass\na.png,0.5\n",
        "image_id,model,method,finding,hit\n0011,m,gradcam,Mass,1\n",
        "image_id,path,sex\na,b,1\n",
        "just,some,words\n1,0,1\n",
        "path,Mass\na.png,\n",
        "",
        'path,"unclosed\n',
    ],
)
def test_other_tables_are_none(tmp_path, text):
    assert read_table(table(tmp_path, text)) is None


def test_plain_labels_blank_is_unknown(tmp_path):
    text = "path,nodule,Pleural Effusion,my finding,notes,patient,view\na/1.dcm,1,-1,0,said so,7,pa\na/2.dcm,0,,1,,7,\n"
    read = read_table(table(tmp_path, text))
    assert read is not None
    assert read.findings == ("Nodule", "Effusion", "my finding")
    assert read.films["a/1.dcm"].labels == {"Nodule": 1, "Effusion": -1, "my finding": 0}
    assert read.films["a/2.dcm"].labels == {"Nodule": 0, "my finding": 1}
    assert (read.films["a/1.dcm"].patient, read.films["a/1.dcm"].view) == ("7", "PA")


def test_bad_cells_of_a_known_finding_are_counted_and_unknown(tmp_path):
    read = read_table(table(tmp_path, "image,Mass\n1.png,1\n2.png,maybe\n"))
    assert read is not None
    assert read.films["2.png"].labels == {}
    assert read.problems == ["cells that are not 1, 0, -1 or blank were taken as unknown (1)"]


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        ("x,y,w,h", "10,20,30,40"),
        ("X,Y,Width,Height", "10,20,30,40"),
        ("x_min,y_min,x_max,y_max", "10,20,40,60"),
        ("xmin,ymin,xmax,ymax", "10,20,40,60"),
    ],
)
def test_box_layouts(tmp_path, columns, cells):
    read = read_table(table(tmp_path, f"path,finding,{columns}\nf.png,mass,{cells}\n"))
    assert read is not None
    assert read.films["f.png"].boxes == (Box("Mass", 10, 20, 30, 40),)


def test_unusable_boxes_are_counted_and_keep_their_label(tmp_path):
    text = "path,finding,x,y,w,h\nf.png,Mass,1,1,0,5\nf.png,Mass,1,nan,2,5\nf.png,Mass,1,here,2,5\n"
    read = read_table(table(tmp_path, text))
    assert read is not None
    assert read.films["f.png"].boxes == ()
    assert read.films["f.png"].labels == {"Mass": 1}
    assert read.problems == ["boxes without a finite position and a positive size were left out (3)"]


def test_rsna_takes_a_row_a_box(tmp_path):
    text = "patientId,x,y,width,height,Target\np1,,,,,0\np2,264.0,152.0,213.0,379.0,1\np2,562,152,256,453,1\np3,,,,,7\n"
    read = read_table(table(tmp_path, text))
    assert read is not None
    assert read.kind == "rsna"
    assert read.films["p1"].labels == {"Pneumonia": 0}
    assert read.films["p2"].labels == {"Pneumonia": 1}
    assert [box.x for box in read.films["p2"].boxes] == [264.0, 562.0]
    assert read.films["p2"].patient == "p2"
    assert read.films["p3"].labels == {}
    assert read.problems == ["rows whose Target is neither 0 nor 1 were left out (1)"]


def test_vindr_readers_looked_for_every_finding(tmp_path):
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
    rows = "a,No finding,14,R1,,,,\nb,Cardiomegaly,3,R1,10,10,20,30\nb,Cardiomegaly,3,R2,11,10,20,30\n"
    rows += "c,Pulmonary fibrosis,13,R3,1,1,2,2\n"
    read = read_table(table(tmp_path, f"{header}\n{rows}"))
    assert read is not None
    assert read.kind == "vindr"
    assert read.films["a"].labels == {"Cardiomegaly": 0, "Fibrosis": 0}
    assert read.films["b"].labels == {"Cardiomegaly": 1, "Fibrosis": 0}
    assert read.films["b"].boxes == (Box("Cardiomegaly", 10.5, 10, 9.5, 20),)  # two readers drew the same one


def test_semicolons_bom_and_windows_paths(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffpath;Mass\r\nsub\\a.png;1\r\n".encode())
    read = read_table(path)
    assert read is not None
    assert read.films["sub/a.png"].labels == {"Mass": 1}


def test_canonical_spellings():
    assert canonical("Infiltrate") == "Infiltration"
    assert canonical("pleural thickening") == "Pleural_Thickening"
    assert canonical("Pleural effusion") == "Effusion"
    assert canonical("Airspace Opacity") == "Lung Opacity"
    assert canonical(" Something Else ") == "Something Else"


@given(st.sampled_from(NIH_FINDINGS), st.sampled_from([str.upper, str.lower, str.title]))
def test_canonical_is_idempotent_and_ignores_case(name, change):
    assert canonical(change(name)) == name
    assert canonical(canonical(change(name))) == name


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.lists(cells, max_size=6), max_size=6))
def test_any_table_is_read_or_refused(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["path", "finding", "x", "y", "w", "h"], *rows])
    read = read_table(path)
    assert read is not None
    assert all(box.width > 0 and box.height > 0 for film in read.films.values() for box in film.boxes)


def test_kind_of_needs_an_image_column():
    assert kind_of(["finding", "x", "y", "w", "h"]) is None
    assert kind_of(["Image", "Finding", "x", "y", "w", "h"]) == "boxes"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a.png", "a.png"),
        ("./a.png", "a.png"),
        ("x/./y//a.png", "x/y/a.png"),
        ("..\\x\\a.png", "../x/a.png"),
        ("/data/a.png", "/data/a.png"),
        ("", ""),
    ],
)
def test_names_of_films_are_spelt_in_one_way(given, expected):
    assert film_name(given) == expected

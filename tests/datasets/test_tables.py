from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrx.compare.comparison import COLUMNS
from cxrx.datasets import sheet, tables
from cxrx.datasets.names import NIH_FINDINGS, canonical
from cxrx.datasets.sheet import film_name
from cxrx.datasets.tables import read_table
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
    assert read.problems == ["cells of 'Mass' that are not 1, 0, -1 or blank were taken as unknown (1)"]


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


def test_names_of_findings_hold_no_control_characters():
    """HDF5 would end a name at its first zero byte."""
    assert canonical("pleural\x00effusion\x07") == "Effusion"
    assert canonical("\x00of our\x00own") == "of our own"
    assert canonical("\x00") == ""


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


def test_boxes_need_an_image_column():
    assert tables.format_of(Path("t.csv"), ["finding", "x", "y", "w", "h"]) is None
    assert tables.format_of(Path("t.csv"), ["image", "finding", "x", "y", "w", "h"]) is tables.BOXES


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_tables_of_a_comparison_are_no_truth_and_nothing_is_said_of_them(tmp_path, columns):
    problems = []
    row = ["film.png" if name == "image_id" else "1" for name in columns]
    text = "\n".join(",".join(line) for line in (columns, row))
    assert read_table(table(tmp_path, text, "a.summary.csv"), problems) is None
    assert problems == []


def test_a_column_of_results_beside_boxes_is_named_and_a_region_is_not_one(tmp_path):
    boxes = "path,finding,x,y,w,h,{0}\na.png,Mass,1,2,3,4,left\n"
    read = read_table(table(tmp_path, boxes.format("region")))
    assert read.films["a.png"].boxes == (Box("Mass", 1, 2, 3, 4),)
    assert read_table(table(tmp_path, "path,region,x,y,w,h\na.png,heart,1,2,3,4\n")) is None
    problems = []
    assert read_table(table(tmp_path, boxes.format("model")), problems) is None
    assert problems == ["t.csv has the column 'model', as results have, and is not read; leave that out if it is truth"]


def test_no_more_lines_are_taken_apart_than_it_takes_to_find_the_header(tmp_path, monkeypatch):
    begun, rows_of = [], sheet.rows_of
    monkeypatch.setattr(sheet, "rows_of", lambda lines, delimiter: begun.append(delimiter) or rows_of(lines, delimiter))
    text = "# a remark\npath;Mass\n" + "".join(f"{i}.png;1\n" for i in range(50))
    assert len(read_table(table(tmp_path, text)).films) == 50
    assert begun == [",", ";", ";"]  # the remark, the header, and the table from there


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


# ---------------------------------------------------------------------------------------------------------------------
# Tables that people have


def film_of(tmp_path, content, name="t.csv"):
    """Return the labels of a.png and what was said."""
    path, said = tmp_path / name, []
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read = read_table(path, said)
    return (None if read is None else {film: dict(known.labels) for film, known in read.films.items()}), said


BOTH = {"a.png": {"Effusion": 1}, "b.png": {"Effusion": 0}}


@pytest.mark.parametrize("name", [
    "ImageID", "dicom_id", "image_id", "Image Index", "filename", "File Name", "image.path", "Image-Name", "IMAGE",
    "SOPInstanceUID", "file_path",
])  # fmt: skip
def test_columns_that_name_films(tmp_path, name):
    assert film_of(tmp_path, f"{name},Effusion\na.png,1\nb.png,0\n") == (BOTH, [])


@pytest.mark.parametrize(("yes", "no"), [
    ("positive", "negative"), ("Yes", "NO"), ("True", "False"), ("present", "absent"), ("1.00", "0,0"), ("Y", "n"),
])  # fmt: skip
def test_words_for_present_and_absent(tmp_path, yes, no):
    assert film_of(tmp_path, f"path;Effusion;my finding\na.png;{yes};{no}\nb.png;{no};nan\n") == (
        {"a.png": {"Effusion": 1, "my finding": 0}, "b.png": {"Effusion": 0}},
        [],
    )


TEXT = "path,Effusion,note\na.png,1,Größe\nb.png,0,\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line", ["\n", "\r\n", "\r"])
def test_encodings_and_separators(tmp_path, encoding, delimiter, line):
    path = tmp_path / "t.csv"
    path.write_bytes(TEXT.replace(",", delimiter).replace("\n", line).encode(encoding))
    read = read_table(path)
    assert {film: dict(known.labels) for film, known in read.films.items()} == BOTH
    assert read.problems == ["it is not in Unicode and was read as Windows-1252"] * (encoding == "cp1252")


@pytest.mark.parametrize(
    "text",
    [
        "# made by hand\n\n# twice\npath,Effusion\na.png,1\nb.png,0\n",
        "Films of the year;;\npath;Effusion;\na.png;1;\nb.png;0;\n",
        "sep=;\npath;Effusion\na.png;1\nb.png;0\n",
        '"path" , "Effusion"\n"a.png",1\n"b.png","0"\n',
        "#path,Effusion\na.png,1\nb.png,0\n",
        ",path,Effusion\n0,a.png,1\n1,b.png,0\n",
        'note,path,Effusion\n"one,\ntwo",a.png,1\n,b.png,0\n',
    ],
)
def test_headers_as_they_come(tmp_path, text):
    assert film_of(tmp_path, text) == (BOTH, [])


@pytest.mark.parametrize("cells", [("1", "0"), ("positive", "negative"), ("yes", "no")])
@pytest.mark.parametrize("name", ["label", "Target", "class"])
def test_a_column_that_says_whether_and_not_what_is_told(tmp_path, name, cells):
    read = read_table(table(tmp_path, f"filename,{name}\na.png,{cells[0]}\nb.png,{cells[1]}\n"))
    assert [film.labels for film in read.films.values()] == [{name: 1}, {name: 0}]
    assert read.problems == [f"the column {name!r} does not say of which finding it is; name it after that (1)"]


def test_a_row_a_film_and_finding(tmp_path):
    text = "path,finding,label\na.png,Effusion,1\na.png,Mass,0\nb.png,pleural effusion,absent\n"
    assert film_of(tmp_path, text) == ({"a.png": {"Effusion": 1, "Mass": 0}, "b.png": {"Effusion": 0}}, [])


def test_lists_of_findings_as_padchest_writes_them(tmp_path):
    header = "ImageID,ImageDir,PatientID,PixelRepresentation_DICOM,Projection,Labels\n"
    rows = "a.png,0,7,0,L,\"['pleural effusion', 'mass']\"\nb.png,1,8,0,PA,['normal']\n"
    read = read_table(table(tmp_path, header + rows))
    assert read.films["a.png"].labels == {"Effusion": 1, "Mass": 1, "No Finding": 0}
    assert (read.films["a.png"].patient, read.films["a.png"].view) == ("7", "LATERAL")
    assert read.films["b.png"].labels == {"Effusion": 0, "Mass": 0, "No Finding": 1}


def test_tables_joined_from_those_of_a_data_set(tmp_path):
    """All of MIMIC in one table; a table of RSNA's columns that names its films by another."""
    text = "subject_id,study_id,dicom_id,Enlarged Cardiomediastinum,Edema,split\n1,2,a,,1,train\n1,2,b,1,,test\n"
    read = read_table(table(tmp_path, text))
    assert {name: (film.labels, film.split) for name, film in read.films.items()} == {
        "a": ({"Edema": 1}, "train"),
        "b": ({"Enlarged Cardiomediastinum": 1}, "test"),
    }
    read = read_table(table(tmp_path, "patientid,filename,class\n1,a.png,COVID-19\n2,b.png,normal\n"))
    assert read.films["b.png"].labels == {"COVID-19": 0, "No Finding": 1}


def test_decimal_commas(tmp_path):
    read = read_table(table(tmp_path, "path;finding;x;y;w;h\na.png;Effusion;2,5;3,5;10,0;8,0\n"))
    assert read.films["a.png"].boxes == (Box("Effusion", 2.5, 3.5, 10, 8),)
    read = read_table(table(tmp_path, "path,finding,x,y,w,h\na.png,Effusion,2,5,3,5,10,0,8,0\n"))
    assert read.films == {}
    assert read.problems == ["rows with more cells than the header were left out (1)"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.csv", "ImageNo,Effusion\na.png,1\n", "no column names the films; its columns are 'imageno', 'effusion'"),
        ("coco.json", '{"images": [{"file_name": "a.png"}], "annotations": []}', "has the form of COCO's JSON"),
        ("t.csv", "a.png,1\nb.png,0\n", "its first line is no header that is understood"),
        ("t.csv", "path,class\na.png,blue\n", "the column 'class' names no known finding and holds no labels"),
        ("t.csv", "path,Effusion\na.png,++\n", "no column holds a finding as 1, 0, -1 or blank"),
        ("t.xlsx", b"PK\x03\x04", "is a spreadsheet or a binary table, which is not read; save it as CSV"),
        ("t.csv", b"PK\x03\x04", "is a spreadsheet or a binary table"),
        ("t.csv.gz", b"\x1f\x8bnot really", "is no gzip file, or is damaged"),
        ("t.csv", bytes(range(256)) * 9, "was not understood"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path, name, content, sentence):
    read, said = film_of(tmp_path, content, name)
    assert read is None
    assert len(said) == 1
    assert said[0].startswith(f"{name} ")
    assert sentence in said[0]


def test_cells_in_the_place_of_a_header_are_not_repeated(tmp_path):
    for text in ("MARY SMITH,a.png,1\nJOHN DOE,b.png,0\n", "patient_mary.png,1\n", "MARY,Effusion,file\n"):
        _, said = film_of(tmp_path, text)
        assert "mary" not in said[0].casefold()


def test_a_table_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "MOST_CELLS", 1000)
    monkeypatch.setattr(tables, "MOST_BYTES", 100_000)
    for rows, sentence in ((800, "has more than 1,000 cells"), (100_000, "is larger than")):
        read, said = film_of(tmp_path, gzip.compress(b"path,Mass\n" + b"a.png,1\n" * rows), "t.csv.gz")
        assert read is None
        assert sentence in said[0]


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60)


@given(st.binary(max_size=200) | texts.map(lambda text: f"path,Mass\n{text}".encode("utf-16")), st.sampled_from([
    "t.csv", "t.tsv.gz", "t.txt", "train_list.txt", "gt_segmentations_a.json", "BBox_List_2017.csv",
]))  # fmt: skip
def test_any_bytes_are_read_or_named(tmp_path_factory, data, name):
    path, said = tmp_path_factory.mktemp("any") / name, []
    path.write_bytes(data)
    read = read_table(path, said)
    assert read is not None or said or name.endswith((".txt", ".json"))

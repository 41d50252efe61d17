"""Boxes in whatever units, and tables that contradict each other."""

from __future__ import annotations

import pytest

from cxrx.datasets import open_dataset
from cxrx.datasets.survey import survey
from cxrx.specs import Box

HEADER = "path,finding"
EXPECTED = Box("Effusion", 80, 200, 400, 250)
"""On a film of 1000 rows and 800 columns."""


def boxes_and_problems(lay, header, cells, size=(1000, 800), name="boxes.csv"):
    top = lay({name: f"{HEADER},{header}\na.png,Effusion,{cells}\n", "a.png": size})
    dataset = open_dataset(top)
    return [box for _, film in dataset.films() for box in film.boxes], survey(dataset)["problems"]


@pytest.mark.parametrize(
    ("header", "cells", "note"),
    [
        ("x,y,w,h", "80,200,400,250", ""),
        ("left,top,right,bottom", "80,200,480,450", ""),
        ("x0,y0,x1,y1", "80,200,480,450", ""),
        ("xmin,ymin,width,height", "80,200,400,250", ""),
        ("x_center,y_center,width,height", "280,325,400,250", ""),
        ("x,y,w,h", "0.1,0.2,0.5,0.25", "in fractions of the picture"),
        ("x_min,y_min,x_max,y_max", "0.1,0.2,0.6,0.45", "in fractions of the picture"),
        ("XCenter,YCenter,W,H", "0.35,0.325,0.5,0.25", "in fractions of the picture"),
        ("cx,cy,w,h", "0.35,0.325,0.5,0.25", "in fractions of the picture"),
        ("x,y,w,h,image_width,image_height", "160,400,800,500,1600,2000", "the boxes were scaled: 1"),
        ("x_min,y_min,x_max,y_max,width,height", "40,100,240,225,400,500", "the boxes were scaled: 1"),
        ("x,y,w,h,img_size", "40,100,200,125,[500 400]", "the boxes were scaled: 1"),
        ("x,y,w,h,rows,columns", "80,200,400,250,1000,800", ""),
        ("x,y,w,h,width,height", "0.1,0.2,0.5,0.25,800,1000", "in fractions of the picture"),
    ],
)
def test_boxes_become_pixels_of_the_film(lay, header, cells, note):
    boxes, problems = boxes_and_problems(lay, header, cells)
    (box,) = boxes
    assert [box.x, box.y, box.width, box.height] == pytest.approx([80, 200, 400, 250])
    told = [text for text in problems if "no table names the patients" not in text]
    assert [note in text for text in told] == [True] * bool(note)


@pytest.mark.parametrize(
    ("header", "cells", "kept", "problem"),
    [
        ("x,y,w,h", "80,200,900,250", 1, "films with boxes that reach beyond them: 1"),
        ("x,y,w,h,width,height", "80,200,400,250,1000,1000", 0, "which were drawn on a picture of another shape: 1"),
        ("x,y,w,h", "10,20,50,25", 1, "as boxes in per cent would be: 1"),
        ("x,y,w,h", "0.1,0.2,0.5,0.25\na.png,Effusion,80,200,400,250", 1, "boxes smaller than a pixel"),
        ("bbox", "[80 200 400 250]", 0, "boxes in one column are not read"),
    ],
)
def test_boxes_that_cannot_be_right_are_told(lay, header, cells, kept, problem):
    boxes, problems = boxes_and_problems(lay, header, cells)
    assert len(boxes) == kept
    assert any(problem in text for text in problems), problems


def test_boxes_of_nih_on_smaller_copies(lay):
    table = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Mass,128,256,512,64,,,\n"
    dataset = open_dataset(lay({"BBox_List_2017.csv": table, "00000001_000.png": (224, 224)}))
    assert dataset.films()[0][1].boxes == (Box("Mass", 28, 56, 112, 14),)
    assert dataset.problems == ["films of another size than what their boxes were drawn on; the boxes were scaled: 1"]


def test_fractions_of_a_film_without_a_size_are_left_out(lay):
    dataset = open_dataset(lay({"b.csv": f"{HEADER},x,y,w,h\na.png,Mass,0.1,0.2,0.5,0.25\n", "a.png": b"no picture"}))
    assert dataset.films()[0][1].boxes == ()
    assert dataset.problems[-1] == "films without their boxes, in fractions of a size that is unknown: 1"


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ("path,Mass\na.png,1\n", "path,Mass\na.png,0\n", "labels in two tables contradict each other"),
        ("path,Mass,patient\na.png,1,A\n", "path,Nodule,patient\na.png,1,B\n", "name different patients"),
        ("path,Mass,view\na.png,1,PA\n", "path,Nodule,view\na.png,1,AP\n", "name different views"),
        ("path,Mass,split\na.png,1,test\n", "path,Nodule,split\na.png,1,train\n", "name different splits"),
        ("path,Mass\na.png,0\n", "path,finding,x,y,w,h\na.png,Mass,1,1,2,2\n", "another table calls absent"),
        ("path,Mass\na.png,1\n", "path,Mass\na.png,1\n", ""),
    ],
)
def test_tables_that_contradict_each_other(lay, one, other, sentence):
    dataset = open_dataset(lay({"a.csv": one, "b.csv": other, "a.png": (9, 9)}))
    assert [sentence in text and text.endswith(": 1") for text in dataset.problems] == [True] * bool(sentence)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("path,Mass,patient\na.png,1,A\na.png,1,B\n", "rows of another patient, view or split than one before"),
        ("path,Mass,split\na.png,1,test\na.png,1,train\n", "rows of another patient, view or split than one before"),
        ("path,label\na.png,normal\na.png,Mass\n", "called normal and have a finding too (1)"),
        ("path,finding,x,y,w,h\na.png,normal,,,,\na.png,Mass,1,1,2,2\n", "called normal and have a box (1)"),
        ("path,finding,present\na.png,Mass,yes\na.png,Mass,no\n", "contradict each other were taken as uncertain (1)"),
    ],
)
def test_rows_that_contradict_each_other(lay, table, sentence):
    dataset = open_dataset(lay({"t.csv": table, "a.png": (9, 9)}))
    assert any(sentence in text for text in dataset.problems), dataset.problems


def test_numbers_in_the_place_of_findings_are_told(lay):
    dataset = open_dataset(lay({"b.csv": "path,class,cx,cy,w,h\na.png,0,0.5,0.5,0.2,0.2\n", "a.png": (9, 9)}))
    assert "b.csv: boxes of findings that are numbers; name them (1)" in dataset.problems

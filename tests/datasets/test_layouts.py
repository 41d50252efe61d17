"""Every public data set in its own layout, made up by hand from what is documented of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cxrx.datasets import CHEXPERT_FINDINGS, NIH_FINDINGS, discover, open_dataset
from cxrx.datasets.specs import BUILTIN_DATASETS
from cxrx.specs import Box
from cxrx.testing import check_dataset

SPECS = {spec.name: spec for spec in BUILTIN_DATASETS}


def opened(folder, name):
    """Open a folder, having checked that it is recognised, alone, and keeps the contract of data sets."""
    dataset = open_dataset(folder)
    assert dataset.name == name
    assert [spec.name for spec in BUILTIN_DATASETS[:-2] if spec.sniff(folder)] in ([name], [])
    assert [outcome.message for outcome in check_dataset(SPECS[name], folder) if not outcome.passed] == []
    return dataset


def of(dataset, path):
    return dict(dataset.films())[path]


def positive(film):
    return {name for name, value in film.labels.items() if value == 1}


# ---------------------------------------------------------------------------------------------------------------------
# NIH


NIH = {
    "Data_Entry_2017_v2020.csv": (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
        "00000001_000.png,Cardiomegaly|Pleural_Thickening,0,1,57,M,PA,2682,2749,0.143,0.143\n"
        "00000001_001.png,No Finding,1,1,58,M,PA,2894,2729,0.143,0.143\n"
        "00000002_000.png,Infiltration,0,2,80,M,AP,2500,2048,0.171,0.171\n"
        "00000003_000.png,Hernia,0,3,74,F,PA,2500,2048,0.168,0.168\n"
    ),
    "BBox_List_2017.csv": (
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000002_000.png,Infiltrate,225.08,547.01,86.7,79.1,,,\n"
    ),
    "train_val_list.txt": "00000001_000.png\n00000001_001.png\n00000003_000.png\n",
    "test_list.txt": "00000002_000.png\n",
    "images_001/images/00000001_000.png": (1024, 1024),
    "images_001/images/00000001_001.png": (1024, 1024),
    "images_002/images/00000002_000.png": (1024, 1024),
    "images_002/images/00000003_000.png": (1024, 1024),
}


def test_nih(lay):
    dataset = opened(lay(NIH), "nih-chestxray14")
    assert dataset.findings == NIH_FINDINGS
    first = of(dataset, "images_001/images/00000001_000.png")
    assert positive(first) == {"Cardiomegaly", "Pleural_Thickening"}
    assert sum(value == 0 for value in first.labels.values()) == 12
    assert (first.patient, first.view) == ("1", "PA")
    assert of(dataset, "images_002/images/00000002_000.png").boxes == (Box("Infiltration", 225.08, 547.01, 86.7, 79.1),)
    assert dataset.patients == ["1", "1", "2", "3"]
    splits = dataset.splits()
    assert splits.kind == "official, valid drawn"
    assert splits.of[2] == "test"
    assert set(splits.of[:2]) | {splits.of[3]} == {"train", "valid"}
    assert splits.of[0] == splits.of[1]
    assert dataset.problems == []


def test_nih_labels_as_a_matrix(lay):
    dataset = open_dataset(lay(NIH))
    matrix = dataset.label_matrix(["pleural thickening", "Infiltrate", "Hernia"])
    assert matrix.dtype == np.int8
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("given", ["", "images_002", "images_002/images", "images_002/images/00000002_000.png"])
def test_nih_from_any_input(lay, given):
    """Tables one level above an input are its own; two levels above they are not."""
    top = lay(NIH)
    truth = discover([top / given])
    film = truth.truth("00000002_000.png")
    if given.count("/") == 0:
        assert film.labels["Infiltration"] == 1
        assert len(film.boxes) == 1
    else:
        assert film is None


def test_the_lists_of_chexnets_reproductions_have_labels(lay):
    rows = "00000001_000.png 0 1 0 0 0 0 0 0 0 0 0 0 0 0\n", "00000002_000.png 0 0 0 0 0 0 0 0 0 0 0 0 0 1\n"
    top = lay(
        {
            "train_list.txt": rows[0],
            "test_list.txt": rows[1],
            "a/00000001_000.png": (9, 9),
            "a/00000002_000.png": (9, 9),
        }
    )
    dataset = open_dataset(top)
    assert [positive(film) for _, film in dataset.films()] == [{"Cardiomegaly"}, {"Hernia"}]
    assert dataset.splits(fractions=(0.8, 0, 0.2)).of == ("train", "test")


def test_the_names_of_nihs_films_tell_their_patients_where_no_table_does(lay):
    """Lists know nothing of patients, and validation films are drawn from those of training."""
    names = [f"{patient:08d}_{film:03d}.png" for patient in range(1, 13) for film in range(10)]
    rows = [f"{name} 1 {' 0' * 13}\n" for name in names]
    lists = {"train_list.txt": "".join(rows[:80]), "test_list.txt": "".join(rows[80:])}
    dataset = open_dataset(lay(lists | {f"images/{name}": b"" for name in names}))
    assert dataset.patients == [str(patient) for patient in range(1, 13) for _ in range(10)]
    splits = dataset.splits()
    assert splits.kind == "official, valid drawn"
    pairs = set(zip(dataset.patients, splits.of, strict=True))
    assert len(pairs) == 12  # no patient in two
    assert {"train", "valid", "test"} == set(splits.of)
    boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00013118_008.png,Mass,225.0,547.0,86.7,79.1,,,\n"
    boxed = open_dataset(lay({"BBox_List_2017.csv": boxes, "00013118_008.png": b""}, "boxed"))
    assert boxed.patients == ["13118"]


# ---------------------------------------------------------------------------------------------------------------------
# RSNA


RSNA = {
    "stage_2_train_labels.csv": (
        "patientId,x,y,width,height,Target\n"
        "0004cfab-14fd-4e49-80ba-63a80b6bddd6,,,,,0\n"
        "00436515-870c-4b36-a041-de91049b9ab4,264.0,152.0,213.0,379.0,1\n"
        "00436515-870c-4b36-a041-de91049b9ab4,562.0,152.0,256.0,453.0,1\n"
        "00313ee0-9eaa-42f4-b0ab-c148ed3241cd,,,,,0\n"
    ),
    "stage_2_detailed_class_info.csv": (
        "patientId,class\n"
        "0004cfab-14fd-4e49-80ba-63a80b6bddd6,No Lung Opacity / Not Normal\n"
        "00436515-870c-4b36-a041-de91049b9ab4,Lung Opacity\n"
        "00436515-870c-4b36-a041-de91049b9ab4,Lung Opacity\n"
        "00313ee0-9eaa-42f4-b0ab-c148ed3241cd,Normal\n"
    ),
    "stage_2_train_images/0004cfab-14fd-4e49-80ba-63a80b6bddd6.dcm": b"",
    "stage_2_train_images/00436515-870c-4b36-a041-de91049b9ab4.dcm": b"",
    "stage_2_train_images/00313ee0-9eaa-42f4-b0ab-c148ed3241cd.dcm": b"",
    "stage_2_test_images/0000a175-0e68-4ca4-b1af-167204a7e0bc.dcm": b"",
}


def test_rsna(lay):
    dataset = opened(lay(RSNA), "rsna-pneumonia")
    assert dataset.findings == ("Lung Opacity", "No Finding", "Pneumonia")
    ill = of(dataset, "stage_2_train_images/00436515-870c-4b36-a041-de91049b9ab4.dcm")
    assert ill.labels == {"Pneumonia": 1, "Lung Opacity": 1, "No Finding": 0}
    assert ill.boxes == (Box("Pneumonia", 264, 152, 213, 379), Box("Pneumonia", 562, 152, 256, 453))
    assert ill.patient == "00436515-870c-4b36-a041-de91049b9ab4"
    matrix = dataset.label_matrix(["Pneumonia", "Lung Opacity", "No Finding"])
    assert matrix.tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 0]]
    assert len(dataset.unlabelled) == 1
    assert dataset.splits().kind == "patient-wise"


# ---------------------------------------------------------------------------------------------------------------------
# CheXpert and CheXlocalize


CHEXPERT_HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)
CHEXPERT = {
    "train.csv": CHEXPERT_HEADER
    + "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n"
    + "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,-1.0,,,,,1.0,,,\n"
    + "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,,,1.0,,,,,,,,,,\n",
    "valid.csv": CHEXPERT_HEADER
    + "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,1.0,1.0,"
    + ",".join(["0.0"] * 10)
    + "\n",
    "train/patient00001/study1/view1_frontal.jpg": (32, 39),
    "train/patient00002/study2/view1_frontal.jpg": (32, 39),
    "train/patient00002/study1/view2_lateral.jpg": (39, 32),
    "valid/patient64541/study1/view1_frontal.jpg": (4, 5),
}


def test_chexpert(lay):
    dataset = opened(lay(CHEXPERT), "chexpert")
    assert dataset.findings == CHEXPERT_FINDINGS
    names = ["No Finding", "Cardiomegaly", "Lung Opacity", "Edema", "Effusion", "Support Devices"]
    paths = [path for path, _ in dataset.films()]
    assert paths == sorted(paths)
    matrix = dict(zip(paths, dataset.label_matrix(names).tolist(), strict=True))
    assert matrix["train/patient00001/study1/view1_frontal.jpg"] == [1, -2, -2, -2, -2, 1]
    assert matrix["train/patient00002/study2/view1_frontal.jpg"] == [-2, -1, 1, -1, 1, -2]
    assert [film.view for _, film in dataset.films()] == ["AP", "LATERAL", "PA", "AP"]
    assert dataset.patients == ["patient00001", "patient00002", "patient00002", "patient64541"]
    assert dataset.splits().kind == "official"
    assert dataset.splits().of == ("train", "train", "train", "valid")


@pytest.mark.parametrize("given", ["train", "train/patient00002", "train/patient00002/study2"])
def test_chexpert_below_its_top(lay, given):
    """Every film is called view1_frontal.jpg, so that less than patient, study and view says nothing."""
    top = lay(CHEXPERT)
    for name in ("train.csv", "valid.csv"):
        (top / given / name).write_text((top / name).read_text())
    film = "patient00002/study2/view1_frontal.jpg"
    path = film if given == "train" else film.removeprefix(given.removeprefix("train/")).removeprefix("/")
    assert discover([top / given]).truth(path).labels["Effusion"] == 1
    assert discover([top / given]).truth("patient00009/study2/view1_frontal.jpg") is None


def test_chexlocalize(lay):
    empty = {"size": [4, 5], "counts": "d0"}  # 20 absent
    masks = {
        "patient64541_study1_view1_frontal": {
            "Airspace Opacity": {"size": [4, 5], "counts": [5, 2, 2, 2, 9]},
            "Cardiomegaly": empty,
            "Lung Lesion": {"size": [4, 5], "counts": "broken"},
        }
    }
    others = {"patient64541_study1_view1_frontal": {"Edema": {"size": [4, 5], "counts": [0, 20]}}}
    top = lay(
        {
            "CheXpert/valid.csv": CHEXPERT["valid.csv"],
            "CheXpert/valid/patient64541/study1/view1_frontal.jpg": (4, 5),
            "CheXlocalize/gt_segmentations_val.json": json.dumps(masks),
            "CheXlocalize/gt_annotations_val.json": "{}",
            "CheXlocalize/gradcam_segmentations_val.json": json.dumps(others),
        }
    )
    dataset = opened(top, "chexpert")
    ((_, film),) = dataset.films()
    (mask,) = film.masks
    assert mask.finding == "Lung Opacity"
    expected = np.zeros((4, 5), bool)
    expected[1:3, 1] = expected[1:3, 2] = True  # column-major: 5 = column 1, row 1
    assert (mask.decode() == expected).all()
    assert film.labels["Cardiomegaly"] == 1  # the radiologists' label, not the empty mask
    assert dataset.problems == ["gt_segmentations_val.json: masks that are no COCO encoding were left out (1)"]


def test_chexlocalize_by_its_polygons(lay):
    outline = [[1.0, 1.0], [3.0, 1.0], [3.0, 2.0], [1.0, 2.0]]
    names = ("patient64541_study1_view1_frontal", "patient64542_study1_view1_frontal")
    films = {name: {"img_size": [4, 5], "Cardiomegaly": [outline]} for name in names}
    top = lay(
        {
            "gt_annotations_test.json": json.dumps(films),
            "patient64541/study1/view1_frontal.jpg": (4, 5),
            "patient64542_study1_view1_frontal.jpg": (4, 5),  # as others store it
        }
    )
    dataset = open_dataset(top)
    expected = np.zeros((4, 5), bool)
    expected[1:3, 1:4] = True
    assert len(dataset.films()) == 2
    for _, film in dataset.films():
        assert film.labels == {"Cardiomegaly": 1}
        assert (film.masks[0].decode() == expected).all()


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"a": 3}', "[" * 100_000])
def test_other_json_is_told(lay, text):
    top = lay({"gt_segmentations_val.json": text, "a.png": (4, 4)})
    assert discover([top]).problems == ["gt_segmentations_val.json: it is not the JSON of CheXlocalize"]


# ---------------------------------------------------------------------------------------------------------------------
# MIMIC


MIMIC_PATH = "files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg"
MIMIC = {
    "mimic-cxr-2.0.0-chexpert.csv.gz": (
        "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,"
        "Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n"
        "10000032,50414267,,,,,,,,,1.0,,,,,\n"
        "10000032,53189527,,1.0,,-1.0,0.0,,,,,0.0,,,,\n"
        "10000764,57375967,,,1.0,,,,,,,,,-1.0,,\n"
    ),
    "mimic-cxr-2.0.0-metadata.csv.gz": (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime\n"
        "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014,10000032,50414267,CHEST (PA),PA,3056,2544,21800506,213014\n"
        "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962,10000032,50414267,CHEST (PA),LATERAL,3056,2544,21800506,1\n"
        "2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab,10000032,53189527,CHEST (PORTABLE AP),AP,3056,2544,21800626,1\n"
        "096052b7-d256dc40-453a102b-fa7d01c6-1b22c6b4,10000764,57375967,CHEST (PA),LL,2544,3056,21321015,1\n"
    ),
    "mimic-cxr-2.0.0-split.csv.gz": (
        "dicom_id,study_id,subject_id,split\n"
        "02aa804e-bde0afdd-112c0b34-7bc16630-4e384014,50414267,10000032,train\n"
        "174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962,50414267,10000032,train\n"
        "2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab,53189527,10000032,train\n"
        "096052b7-d256dc40-453a102b-fa7d01c6-1b22c6b4,57375967,10000764,validate\n"
    ),
    MIMIC_PATH: (30, 25),
    "files/p10/p10000032/s50414267/174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962.jpg": (30, 25),
    "files/p10/p10000032/s53189527/2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab.jpg": (30, 25),
    "files/p10/p10000764/s57375967/096052b7-d256dc40-453a102b-fa7d01c6-1b22c6b4.jpg": (25, 30),
}


def test_mimic(lay):
    dataset = opened(lay(MIMIC), "mimic-cxr-jpg")
    assert [film.view for _, film in dataset.films()] == ["PA", "LATERAL", "AP", "LATERAL"]
    names = ["No Finding", "Cardiomegaly", "Edema", "Enlarged Cardiomediastinum", "Effusion", "Pneumonia"]
    assert dataset.label_matrix(names).tolist() == [
        [1, -2, -2, -2, -2, -2],
        [1, -2, -2, -2, -2, -2],
        [-2, 1, -1, 0, 0, -2],
        [-2, -2, -2, -2, -2, -1],
    ]
    assert dataset.patients == ["10000032"] * 3 + ["10000764"]
    assert dataset.splits().of == ("train", "train", "train", "valid")
    assert dataset.problems == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mimic_labels_alone_are_joined_by_the_study_in_the_path(lay, suffix):
    name = "mimic-cxr-2.0.0-chexpert.csv"
    dataset = open_dataset(lay({name + suffix: MIMIC[name + ".gz"], MIMIC_PATH: (30, 25)}))
    assert dataset.films()[0][1].labels == {"No Finding": 1}
    assert dataset.films()[0][1].patient == "10000032"
    assert "joined by the study in their path" in dataset.problems[0]


def test_the_other_labeller_of_mimic_counts_only_alone(lay):
    other = MIMIC["mimic-cxr-2.0.0-chexpert.csv.gz"].replace("1.0", "0.0")
    both = open_dataset(lay(MIMIC | {"mimic-cxr-2.0.0-negbio.csv.gz": other}))
    assert of(both, MIMIC_PATH).labels == {"No Finding": 1}


# ---------------------------------------------------------------------------------------------------------------------
# VinDr


VINDR = {
    "annotations/annotations_train.csv": (
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
        "a1,R1,Cardiomegaly,10,10,30,30\na1,R2,Cardiomegaly,12,10,32,30\na1,R3,No finding,,,,\n"
        "a1,R2,Pleural effusion,1,1,5,5\n"
        "b2,R1,No finding,,,,\nb2,R2,No finding,,,,\nb2,R3,No finding,,,,\n"
        "c3,R1,Nodule/Mass,1,1,5,5\nc3,R2,Nodule/Mass,50,50,60,60\nc3,R3,Nodule/Mass,1,1,5,5\n"
    ),
    "annotations/annotations_test.csv": (
        "image_id,class_name,x_min,y_min,x_max,y_max\nd4,Nodule/Mass,4,4,8,9\ne5,No finding,,,,\n"
    ),
    "annotations/image_labels_train.csv": (
        "image_id,rad_id,Cardiomegaly,Nodule/Mass,Pleural effusion,Tuberculosis,No finding\n"
        "a1,R1,1,0,0,0,0\na1,R2,1,0,1,1,0\na1,R3,0,0,0,1,0\n"
        "b2,R1,0,0,0,0,1\nb2,R2,0,0,0,0,1\nb2,R3,0,0,0,0,1\n"
        "c3,R1,0,1,0,0,0\nc3,R2,0,1,0,0,0\nc3,R3,0,1,0,0,0\n"
    ),
    "train/a1.dicom": b"",
    "train/b2.dicom": b"",
    "train/c3.dicom": b"",
    "test/d4.dicom": b"",
    "test/e5.dicom": b"",
}


def test_vindr(lay):
    dataset = opened(lay(VINDR), "vindr-cxr")
    first, second, third = (of(dataset, f"train/{name}.dicom") for name in ("a1", "b2", "c3"))
    # two of three saw the heart, one the effusion (uncertain), two tuberculosis, which has no box
    assert first.labels == {"Cardiomegaly": 1, "Effusion": -1, "Nodule/Mass": 0, "Tuberculosis": 1, "No Finding": 0}
    assert first.boxes == (Box("Cardiomegaly", 11, 10, 20, 20),)  # the mean of two readers; no box of the uncertain one
    assert positive(second) == {"No Finding"}
    assert third.boxes == (Box("Nodule/Mass", 1, 1, 4, 4), Box("Nodule/Mass", 50, 50, 10, 10))
    assert of(dataset, "test/d4.dicom").labels["Nodule/Mass"] == 1
    assert of(dataset, "test/d4.dicom").boxes == (Box("Nodule/Mass", 4, 4, 4, 5),)
    assert positive(of(dataset, "test/e5.dicom")) == set()
    assert dataset.splits().kind == "official, valid drawn"
    assert dict(zip([p for p, _ in dataset.films()], dataset.splits().of, strict=True))["test/d4.dicom"] == "test"


def test_vindr_as_kaggle_has_it(lay):
    header = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    rows = "a1,Aortic enlargement,0,R8,691,1375,1653,1831\na1,No finding,14,R9,,,,\na1,No finding,14,R10,,,,\n"
    dataset = opened(lay({"train.csv": header + rows, "train/a1.dicom": b"", "test/z9.dicom": b""}), "vindr-cxr")
    assert of(dataset, "train/a1.dicom").labels == {"Aortic enlargement": -1}
    assert of(dataset, "train/a1.dicom").boxes == ()
    assert dataset.unlabelled == ["test/z9.dicom"]


# ---------------------------------------------------------------------------------------------------------------------
# SIIM


UID = "1.2.276.0.7230010.3.1.4.8323329.{}"


def test_siim(lay):
    """Column-major and relative: 2051 2 1 3 begins at column 2, row 3."""
    ids = [UID.format(f"{n}.1517875201.850819") for n in (1, 2, 3, 4)]
    rows = f"{ids[0]}, -1\n{ids[1]}, 2051 2 1 3\n{ids[2]}, 0 1\n{ids[2]}, 1024 1\n{ids[3]}, 5 5 5\n"
    films = {f"dicom-images-train/{UID.format(9)}/{UID.format(8)}/{uid}.dcm": b"" for uid in ids}
    dataset = opened(lay({"train-rle.csv": f"ImageId, EncodedPixels\n{rows}"} | films), "siim-acr")
    found = {path.rpartition("/")[2].removesuffix(".dcm"): film for path, film in dataset.films()}
    assert [found[uid].labels["Pneumothorax"] for uid in ids] == [0, 1, 1, 1]
    assert found[ids[0]].masks == ()
    mask = found[ids[1]].masks[0].decode()
    assert mask.shape == (1024, 1024)
    assert {(int(y), int(x)) for y, x in np.argwhere(mask)} == {(3, 2), (4, 2), (6, 2), (7, 2), (8, 2)}
    joined = found[ids[2]].masks[0].decode()
    assert {(int(y), int(x)) for y, x in np.argwhere(joined)} == {(0, 0), (0, 1)}
    assert found[ids[3]].masks == ()
    assert "no run-length encoding of 1024 x 1024 pixels were left out (1)" in dataset.problems[0]
    assert dataset.splits().kind == "patient-wise"


def test_siim_encodings_longer_than_the_csv_module_likes(lay):
    text = " ".join(["3 1"] * 60_000)
    dataset = open_dataset(lay({"stage_2_train.csv": f"ImageId,EncodedPixels\nabc,{text}\n", "abc.png": (8, 8)}))
    assert dataset.films()[0][1].masks[0].decode().sum() == 60_000


# ---------------------------------------------------------------------------------------------------------------------
# Folders named by class


COVID = {
    f"{split}/{name}/{n}.jpg": (8, 9)
    for split, count in (("train", 3), ("test", 2))
    for name in ("COVID19", "NORMAL", "PNEUMONIA")
    for n in range(count)
}


def test_class_folders(lay):
    dataset = opened(lay(COVID), "class-folders")
    assert dataset.findings == ("COVID-19", "No Finding", "Pneumonia")
    assert of(dataset, "train/NORMAL/0.jpg").labels == {"COVID-19": 0, "No Finding": 1, "Pneumonia": 0}
    assert dataset.label_matrix().sum(axis=0).tolist() == [5, 5, 5]
    splits = dict(zip([path for path, _ in dataset.films()], dataset.splits().of, strict=True))
    assert {word for path, word in splits.items() if path.startswith("test/")} == {"test"}
    assert {word for path, word in splits.items() if path.startswith("train/")} == {"train", "valid"}


def test_class_folders_with_images_and_masks_and_no_splits(lay):
    files = {f"{name}/images/{n}.png": (8, 8) for name in ("COVID", "Normal", "Viral Pneumonia") for n in range(2)}
    files |= {f"COVID/masks/{n}.png": (8, 8) for n in range(2)} | {"__MACOSX/NORMAL/._1.png": b""}
    dataset = opened(lay(files), "class-folders")
    assert dataset.findings == ("COVID-19", "No Finding", "Viral Pneumonia")
    assert len(dataset.films()) == 6
    assert dataset.splits().kind == "patient-wise"


@pytest.mark.parametrize("given", ["test", "test/NORMAL", "test/NORMAL/0.jpg"])
def test_class_folders_from_any_input(lay, given):
    truth = discover([lay(COVID) / given])
    assert truth.name == "class-folders"
    assert positive(truth.truth("NORMAL/0.jpg" if given == "test" else "0.jpg")) == {"No Finding"}


@pytest.mark.parametrize(
    "folders",
    [
        ("patient1", "patient2"),
        ("train/patient1", "train/patient2"),
        ("PNEUMONIA",),
        ("a/x", "b/y"),
    ],
)
def test_other_folders_are_no_classes(lay, folders):
    top = lay({f"{folder}/1.png": (8, 8) for folder in folders})
    assert discover([top]).name == ""


def test_a_table_of_labels_goes_before_the_folders(lay):
    top = lay(COVID | {"labels.csv": "path,Mass\n0.jpg,1\n" + "train/NORMAL/1.jpg,1\n"})
    assert discover([top]).name == "tables"


def test_a_table_of_other_films_does_not(lay):
    """What lies beside the data set, in a folder of downloads, is not of it."""
    top = lay({f"covid/{name}": size for name, size in COVID.items()} | {"labels.csv": "path,Mass\nother.png,1\n"})
    dataset = open_dataset(top / "covid")
    assert positive(of(dataset, "test/NORMAL/0.jpg")) == {"No Finding"}
    assert dataset.source.absent([path for path, _ in dataset.films()]) == 0


def test_an_empty_class_is_told(lay):
    top = lay(COVID | {"train/TUBERCULOSIS/notes.md": ""})
    assert open_dataset(top).problems == ["data: the class 'TUBERCULOSIS' of train has no film"]


# ---------------------------------------------------------------------------------------------------------------------
# Plain tables


def test_plain_tables_with_splits_of_their_own(lay):
    rows = "".join(f"f{n}.png,{n % 2},p{n // 2},{'test' if n > 3 else 'train'}\n" for n in range(6))
    top = lay({"labels.csv": f"path,Mass,patient,split\n{rows}"} | {f"films/f{n}.png": (9, 9) for n in range(6)})
    dataset = opened(top, "tables")
    assert dataset.label_matrix().ravel().tolist() == [0, 1, 0, 1, 0, 1]
    assert dataset.splits().of[4:] == ("test", "test")
    assert dataset.split("films/f5.png") == "test"
    assert dataset.split("films/none.png") == ""


def test_labels_in_words(lay):
    rows = "a.png,Pneumonia|Infiltrate\nb.png,normal\nc.png,Pleural effusion\nc.png,Pneumonia\nd.png,\n"
    top = lay({"t.csv": f"path,label\n{rows}"} | {f"{name}.png": (9, 9) for name in "abcd"})
    dataset = opened(top, "tables")
    assert dataset.findings == ("Pneumonia", "Infiltration", "No Finding", "Effusion")
    assert dataset.label_matrix().tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1], [-2, -2, -2, -2]]
    assert dataset.problems == ["t.csv: rows without a finding were left out (1)"]
    other = lay({"t.csv": "path,label\na.png,blue\n", "a.png": (9, 9)}, "other")
    assert discover([other]).name == ""


def test_labels_as_pandas_writes_them(lay):
    top = lay({"t.csv": "path,Mass,Nodule\na.png,True,1.0\nb.png,False,\n", "a.png": (9, 9), "b.png": (9, 9)})
    assert open_dataset(top).label_matrix().tolist() == [[1, 1], [0, -2]]


def test_links(lay):
    """Films and folders that are links are films and folders; a link that leads to itself hides nothing."""
    store = lay({"one.png": (9, 9), "more/two.png": (9, 9)}, "store")
    top = lay({"t.csv": "path,Mass\nfilms/one.png,1\nmore/two.png,0\n", "films/readme": ""})
    (top / "films" / "one.png").symlink_to(store / "one.png")
    (top / "films" / "self.png").symlink_to("self.png")
    (top / "films" / "loop").symlink_to("loop")
    (top / "more").symlink_to(store / "more")
    (store / "more" / "up").symlink_to(store / "more")
    dataset = open_dataset(top)
    assert {path: film.labels for path, film in dataset.films()} == {
        "films/one.png": {"Mass": 1},
        "more/two.png": {"Mass": 0},
    }


def test_masks_and_boxes_need_no_labels(lay):
    top = lay({"boxes.csv": "path,finding,x,y,w,h\na.png,Mass,1,2,3,4\n", "a.png": (9, 9), "b.png": (9, 9)})
    dataset = open_dataset(top)
    assert dataset.label_matrix().tolist() == [[1]]
    assert dataset.unlabelled == ["b.png"]


def test_dicom_without_a_suffix_is_a_film_where_a_table_names_it(lay):
    top = lay({"t.csv": "image,Mass\n1.2.3.4,1\n", "a/1.2.3.4": b"", "LICENSE": b"", "README": b""})
    dataset = open_dataset(top)
    assert dataset.paths == ["a/1.2.3.4"]
    assert dataset.label_matrix().tolist() == [[1]]


def test_films_in_folders_named_by_split(lay):
    """Where the tables tell no split, the folders of the films do."""
    homes = ["train", "train", "val", "test", "other"]
    rows = "".join(f"f{n}.png,1\n" for n in range(5))
    top = lay({"t.csv": f"path,Mass\n{rows}"} | {f"{home}/f{n}.png": (9, 9) for n, home in enumerate(homes)})
    dataset = open_dataset(top)
    assert dataset.splits().kind == "official"
    assert [dataset.split(f"{home}/f{n}.png") for n, home in enumerate(homes)] == [
        "train",
        "train",
        "valid",
        "test",
        "",
    ]

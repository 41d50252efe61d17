"""Which objects, body parts and views pass."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from cxrx.specs import Film

CR, DX, SC = (f"1.2.840.10008.5.1.4.1.1.{s}" for s in ("1", "1.1", "7"))


@pytest.mark.parametrize("elements", [{}, {"SOPClassUID": DX, "Modality": "DX"}, {"SOPClassUID": SC}], ids=str)
def test_chest_films_pass(make, elements):
    film = make.read(make.film(**elements))
    assert isinstance(film, Film)
    assert (film.view, film.patient, film.synthetic, film.flags) == ("PA", "P1", False, ())
    assert film.uid.startswith("1.2.826.0.1")


def test_phantoms_are_recognised(make):
    assert make.read(make.film(ManufacturerModelName="cxrx phantom")).synthetic


@pytest.mark.parametrize("modality", ["OT", "CT", "US", None])
def test_secondary_captures_of_something_else_are_skipped(make, refused, modality):
    refused(make.film(SOPClassUID=SC, Modality=modality), "skipped", "other-modality")


def test_a_localizer_is_skipped(make, refused):
    refused(make.film(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "skipped", "localizer")


@pytest.mark.parametrize(
    "elements",
    [{"SOPClassUID": DX + ".1"}, {"SOPClassUID": DX, "PresentationIntentType": "FOR PROCESSING"}],
    ids=str,
)
def test_raw_detector_data_have_to_be_asked_for(make, refused, elements):
    refused(make.film(**elements), "skipped", "for-processing")
    assert isinstance(make.read(make.film(**elements), for_processing=True), Film)


@pytest.mark.parametrize("part", ["CHEST", "chest", "ERECT CHEST", "THORAX", "CHEST_TO_ABDOMEN", "LUNG", "RIBS", ""])
def test_chests(make, part):
    assert make.read(make.film(BodyPartExamined=("CS", part))).flags == ()


@pytest.mark.parametrize(
    "part", ["EXTREMITY", "KNEE", "ABDOMEN", "TSPINE", "THORACIC SPINE", "SKULL", "HAND", "LOW_EXM LEG"]
)
def test_other_body_parts_are_skipped_unless_asked_for(make, refused, part):
    data = make.film(BodyPartExamined=("CS", part))
    refused(data, "skipped", "body-part")
    film = make.read(data, non_chest=True)
    assert any(flag.startswith("body part: not a chest") for flag in film.flags)


def test_an_unknown_word_passes_flagged_and_unquoted(make, flagged):
    film = flagged(make.film(BodyPartExamined="DEFAULT"), "body part: the header's word is not known")
    assert "DEFAULT" not in str(film.flags)


def coded(value: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return [item]


def test_the_region_counts_where_the_part_is_empty(make, refused):
    knee = {"BodyPartExamined": None, "AnatomicRegionSequence": coded("72696002", "Knee")}
    refused(make.film(**knee), "skipped", "body-part")
    chest = {"BodyPartExamined": None, "AnatomicRegionSequence": coded("51185008", "Chest")}
    assert make.read(make.film(**chest)).flags == ()


@pytest.mark.parametrize(
    ("elements", "view"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "AP"}, "AP"),
        ({"ViewPosition": "AP_AXIAL"}, "AP"),
        ({"ViewPosition": "LL"}, "LATERAL"),
        ({"ViewPosition": "LATERAL"}, "LATERAL"),
        ({"ViewPosition": "LLD"}, "FRONTAL"),
        ({"ViewPosition": "RAO"}, "OBLIQUE"),
        ({"ViewCodeSequence": coded("399348003", "antero-posterior")}, "AP"),
        ({"ViewCodeSequence": coded("272479007", "postero-anterior")}, "PA"),
        ({"ViewCodeSequence": coded("399067008", "Lateral projection")}, "LATERAL"),
        ({"PatientOrientation": ["L", "F"]}, "FRONTAL"),
        ({"PatientOrientation": ["R", "F"]}, "FRONTAL"),
        ({"PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"PatientOrientation": ["P", "F"]}, "LATERAL"),
        ({"SeriesDescription": "view: PA"}, "PA"),
        ({"SeriesDescription": "Chest Lateral"}, "LATERAL"),
        ({"SeriesDescription": "W033 Chest a.p."}, "AP"),
        ({"SeriesDescription": "CHEST PA AND LAT"}, ""),
        ({"SeriesDescription": "Chest AP/PA"}, "FRONTAL"),
        ({"SeriesDescription": "PA oblique"}, "OBLIQUE"),
        ({"SeriesDescription": "PAPILLA apart"}, ""),
        ({"SeriesDescription": ""}, ""),
        ({"ViewPosition": "PA", "PatientOrientation": ["A", "F"]}, "PA"),
        ({"PatientOrientation": ["P", "F"], "SeriesDescription": "PA"}, "LATERAL"),
    ],
    ids=str,
)
def test_views(make, elements, view):
    film = make.read(make.film(**({"ViewPosition": ""} | elements)), views=("all",))
    assert film.view == view


@pytest.mark.parametrize(
    ("position", "group"), [("LL", "lateral"), ("RAO", "oblique"), ("", "unknown"), ("AP", "frontal")]
)
def test_only_the_views_asked_for(make, refused, position, group):
    data = make.film(ViewPosition=position)
    others = tuple({"frontal", "lateral", "oblique", "unknown"} - {group})
    reason = refused(data, "skipped", "view", views=others)
    assert group in reason.message
    assert isinstance(make.read(data, views=(group,)), Film)
    assert isinstance(make.read(data), Film) == (group in {"frontal", "unknown"})


def test_real_dicoms(make, realdata):
    films = {p.name: make.read(p.read_bytes()) for p in (realdata / "dicom").glob("*.dcm")}
    leg = films.pop("RG3_J2KI.dcm")
    assert (leg.kind, leg.code) == ("skipped", "body-part")
    assert {film.view for film in films.values()} == {"PA"}
    shapes = {name[:3]: film.pixels.shape for name, film in films.items()}
    assert shapes == {"1.2": (1024, 1024), "Fak": (1024, 1024), "RG1": (1955, 1841)}
    fake, true = films["Fake_MONOHR1.dcm"], next(f for n, f in films.items() if n.startswith("1.2"))
    assert fake.uid == true.uid
    assert fake.sha256 != true.sha256
    assert abs(1 - fake.pixels - true.pixels).max() < 1e-6
    # the air beside the shoulders is black, the heart bright: the right way up
    masses = films["RG1_J2KI.dcm"].pixels
    assert masses[60:100, 50:150].mean() < 0.45
    assert masses[1200:1400, 1050:1200].mean() > 0.8

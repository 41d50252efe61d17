"""Folders of phantoms and the packaged sample."""

from __future__ import annotations

import csv
import errno
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import pixel_array

from cxrx.errors import DiskFullError, ResultsError, UsageError
from cxrx.phantom import FINDINGS, make_film, sample, write_folder
from cxrx.phantom.folder import patients
from cxrx.reading.find import find
from cxrx.reading.options import ReadOptions
from cxrx.reading.readers import read_films
from cxrx.specs import Film, Unreadable

SAMPLE = Path(__file__).parents[2] / "sample_data"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms") / "out"
    done = []
    write_folder(out, 12, 4, size=(128, 112), shortcut="Effusion", progress=done.append)
    assert done == [1] * 12
    return out


def test_tables_films_and_masks_agree(folder):
    truth, boxes = table(folder / "truth.csv"), table(folder / "boxes.csv")
    assert list(truth[0]) == ["path", *FINDINGS, "patient", "view"]
    assert list(boxes[0]) == ["path", "finding", "x", "y", "w", "h"]
    assert [row["path"] for row in truth] == [f"films/{k:06d}.dcm" for k in range(1, 13)]
    for row in truth:
        ds = pydicom.dcmread(folder / row["path"])
        assert (ds.PatientID, ds.ViewPosition) == (row["patient"], row["view"])
        present = {name for name in FINDINGS if row[name] == "1"}
        stem = Path(row["path"]).stem
        assert {path.stem.split("__")[1] for path in (folder / "masks").glob(f"{stem}__*.png")} == present
        mine = [box for box in boxes if box["path"] == row["path"]]
        assert {box["finding"] for box in mine} == present
        for finding in present:
            mask = np.asarray(Image.open(folder / "masks" / f"{stem}__{finding}.png"))
            assert set(np.unique(mask)) == {0, 255}
            covered = np.zeros(mask.shape, bool)
            for box in (b for b in mine if b["finding"] == finding):
                x, y, w, h = (int(box[key]) for key in "xywh")
                covered[y : y + h, x : x + w] = True
            assert not (mask.astype(bool) & ~covered).any()


def test_films_are_those_of_make_film(folder):
    patient = patients(12, 4)[3]
    film = make_film(4, 3, size=(128, 112), patient=patient, shortcut="Effusion")
    stored = pixel_array(pydicom.dcmread(folder / "films" / "000004.dcm"))
    np.testing.assert_array_equal(stored, np.round(160 + film.pixels.astype(np.float64) * 3740))


def test_the_shortcut_table_names_marked_films(folder):
    tokens = table(folder / "regions.csv")
    order = patients(12, 4)
    marked = [k for k in range(12) if make_film(4, k, size=(128, 112), patient=order[k], shortcut="Effusion").shortcut]
    assert [row["path"] for row in tokens] == [f"films/{k + 1:06d}.dcm" for k in marked]


def test_a_quarter_of_patients_have_two_films():
    counts = Counter(Counter(patients(500, 1)).values())
    assert counts == {1: 300, 2: 100}
    assert patients(500, 1)[:77] == patients(77, 1)


def test_occupied_folders_and_wrong_requests_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="not an empty folder"):
        write_folder(folder, 2, 0)
    with pytest.raises(UsageError, match="at least 1"):
        write_folder(tmp_path / "a", 0, 0)
    with pytest.raises(UsageError, match="no phantom finding"):
        write_folder(tmp_path / "b", 1, 0, shortcut="Fracture")


# ---------------------------------------------------------------------------------------------------------------------
# sample_data


def test_the_sample_is_mixed_complete_and_small():
    truth = table(SAMPLE / "truth.csv")
    films = sorted((SAMPLE / "films").glob("*.dcm"))
    assert [row["path"] for row in truth] == [f"films/{path.name}" for path in films]
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 10_000_000
    for name in FINDINGS:
        assert sum(row[name] == "1" for row in truth) >= 3
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in films]
    assert {str(ds.file_meta.TransferSyntaxUID) for ds in headers} == {
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.80",
    }
    assert {ds.PhotometricInterpretation for ds in headers} == {"MONOCHROME1", "MONOCHROME2"}
    assert any("VOILUTSequence" in ds for ds in headers)
    assert any("WindowCenter" in ds for ds in headers)
    assert {ds.ViewPosition for ds in headers} == {"PA", "AP"}


@pytest.mark.slow
def test_the_sample_is_what_the_command_writes(tmp_path):
    """Tables equal; pixels equal up to one level, since the last digit of an exponential differs between machines."""
    assert sample.main([str(tmp_path / "again")]) == 0
    assert sample.main([]) == 2
    for name in ("truth.csv", "boxes.csv", "README.md"):
        assert (tmp_path / "again" / name).read_text() == (SAMPLE / name).read_text()
    for path in sorted((SAMPLE / "films").glob("*.dcm")):
        old, new = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "again" / "films" / path.name)
        difference = pixel_array(old).astype(int) - pixel_array(new)
        assert abs(difference).max() <= 1
        del old.PixelData, new.PixelData
        assert old == new


def test_cxrx_reads_the_sample_as_it_was_drawn():
    """The whole reading path on every encoding: right way up, right window, synthetic; the state is skipped."""
    order = patients(sample.FILMS, sample.SEED)
    kinds = Counter()
    for item in find([SAMPLE]):
        for result in read_films(item, ReadOptions()):
            kinds[type(result)] += 1
            if isinstance(result, Unreadable):
                assert (result.kind, item.path.name) == ("skipped", "state.dcm")
                continue
            assert isinstance(result, Film)
            assert result.synthetic
            assert not result.flags
            index = int(item.path.stem) - 1
            if index < 8:  # every encoding once
                drawn = make_film(sample.SEED, index, patient=order[index])
                np.testing.assert_allclose(result.pixels, drawn.pixels, atol=1 / 1500)
                assert result.view == drawn.view
    assert kinds == {Film: sample.FILMS, Unreadable: 1}


@pytest.mark.parametrize("step", range(6))
def test_a_full_disk_leaves_no_half_folder(step, tmp_path, monkeypatch):
    """Whichever write fails: a film, a mask or a table."""
    written = []

    def write(path, data):
        written.append(path)
        if len(written) > step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with path.open("wb") as file:
            file.write(data)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(DiskFullError, match="the disk is full") as caught:
        write_folder(tmp_path / "out", 6, seed=1, size=(64, 64))
    assert caught.value.hint == "make room and start the same command again"
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    write_folder(tmp_path / "out", 6, seed=1, size=(64, 64))  # the same command again


def test_what_the_system_refuses_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="Not a directory"):
        write_folder(tmp_path / "file" / "out", 1, seed=1)

"""A folder in which almost everything is wrong: the run goes on, every file is listed, nothing is lost."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless
from typer.testing import CliRunner

import cxrx
from cxrx.cli import app


def film(**changes):
    """Return a small valid DX film, with attributes changed (None: removed)."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = changes.pop("syntax", ExplicitVRLittleEndian)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.Modality, data.PhotometricInterpretation, data.ViewPosition = "DX", "MONOCHROME2", "PA"
    data.Rows = data.Columns = 48
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.WindowCenter, data.WindowWidth = 2048, 4096
    ramp = np.add.outer(np.arange(48), np.arange(48)) * 40
    data.PixelData = ramp.astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def as_bytes(data):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def deflate_bomb():
    """Return a film whose 1 MB of deflated data set would be 1 GiB."""
    whole = as_bytes(film(syntax=DeflatedExplicitVRLittleEndian))
    length = int.from_bytes(whole[140:144], "little")  # value of (0002,0000), which stands first behind the mark
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(b"\0" * (1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands for itself: repeatable
    return whole[: 144 + length] + block * 64 + packer.flush()


def j2k(cut=None):
    buffer = io.BytesIO()
    Image.fromarray((np.indices((48, 48)).sum(0) * 2).astype(np.uint8)).save(buffer, "JPEG2000", irreversible=False)
    data = film(syntax=JPEG2000Lossless, BitsAllocated=8, BitsStored=8, HighBit=7)
    data.PixelData = encapsulate([buffer.getvalue()[:cut]])
    data["PixelData"].is_undefined_length = True
    return as_bytes(data)


def mpeg():
    data = film(syntax=MPEG2MPML)
    data.PixelData = encapsulate([b"\0" * 64])
    data["PixelData"].is_undefined_length = True
    return as_bytes(data)


def png(size, mode="L"):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


# pydicom warns of what is written here on purpose; films are read in other processes
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

FAILED = {
    "native pixels short": lambda: as_bytes(film(PixelData=film().PixelData[:1000])),
    "codestream cut": lambda: j2k(cut=150),
    "rows and columns of 65535": lambda: as_bytes(film(Rows=65535, Columns=65535)),
    "no rows": lambda: as_bytes(film(Rows=0)),
    "no pixel data": lambda: as_bytes(film(PixelData=None)),
    "12 bits allocated": lambda: as_bytes(film(BitsAllocated=12)),
    "more bits stored than allocated": lambda: as_bytes(film(BitsStored=17)),
    "two samples": lambda: as_bytes(film(SamplesPerPixel=2)),
    "unknown photometric": lambda: as_bytes(film(PhotometricInterpretation="MONOCHROME9")),
    "MPEG": mpeg,
    "slope 0": lambda: as_bytes(film(RescaleSlope=0, RescaleIntercept=0)),
    "slope 1e308": lambda: as_bytes(film(RescaleSlope="1e308", RescaleIntercept=0)),
    "constant picture": lambda: as_bytes(film(PixelData=b"\0" * 4608)),
    "PNG cut": lambda: png((48, 48))[:50],
    "PNG constant": lambda: png((48, 48)),
}
FLAGGED = {
    "pixels too long": lambda: as_bytes(film(PixelData=film().PixelData + b"\0" * 100)),
    "empty window": lambda: as_bytes(film(WindowCenter="", WindowWidth="")),
    "window width 0": lambda: as_bytes(film(WindowWidth=0)),
    "unequal window counts": lambda: as_bytes(film(WindowCenter=[1, 2], WindowWidth=[3])),
    "unknown VOI function": lambda: as_bytes(film(VOILUTFunction="CUBIC")),
}
SKIPPED = {
    "0 bytes": lambda: b"",
    "text": lambda: b"just some words\n" * 20,
    "JPEG named dcm": lambda: b"\xff\xd8\xff\xe0" + b"\0" * 300,
    "preamble only": lambda: b"\0" * 128 + b"DICM",
    "header cut": lambda: as_bytes(film())[:400],
}


def write(folder: Path, made) -> list[str]:
    names = []
    for name, make in made.items():
        suffix = ".png" if name.startswith("PNG") else ".dcm"
        (folder / (name + suffix)).write_bytes(make())
        names.append(name + suffix)
    return names


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "good.dcm").write_bytes(as_bytes(film()))
    (folder / "traversal.dcm").write_bytes(as_bytes(film(SOPInstanceUID="../../etc/passwd", PixelData=other())))
    return folder


def other():
    return (np.indices((48, 48))[0] * 80).astype("<u2").tobytes()


def test_every_bad_file_is_listed_with_a_reason_and_the_run_goes_on(folder, net, tmp_path):
    failed, flagged, skipped = (write(folder, made) for made in (FAILED, FLAGGED, SKIPPED))
    (folder / "bomb.dcm").write_bytes(deflate_bomb())
    failed.append("bomb.dcm")
    os.mkfifo(folder / "pipe.dcm")
    (folder / "loop.dcm").symlink_to("loop.dcm")
    skipped += ["pipe.dcm", "loop.dcm"]
    out = tmp_path / "results.h5"
    words = ["predict", folder, "-m", net, "--labels", "a,b", "-o", out, "--device", "cpu", "--workers", 2]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 3, result.output + result.stderr
    with cxrx.open_results(out) as results:
        names = {link.image_id: link.relative for link in results.links()}
        status = {names[i]: s for i, s in zip(results.images()["image_id"], results.images()["status"], strict=True)}
        message = {names[i]: m for i, m in zip(results.images()["image_id"], results.images()["message"], strict=True)}
        failures = results.failures()
    listed = (tmp_path / "failures.csv").read_text()
    assert {name: status.get(name) for name in failed} == dict.fromkeys(failed, "failed")
    assert all(name in listed for name in failed)
    assert {name: status.get(name) for name in flagged} == dict.fromkeys(flagged, "flagged")
    assert all(status.get(name) == "skipped" or name in listed for name in skipped)
    assert status["good.dcm"] == status["traversal.dcm"] == "ok"
    assert all(message[name] for name in failed + flagged)
    assert (failures["code"] != "").all()
    assert len(status) + (failures["stage"] == "find").sum() == len(list(folder.iterdir()))


def test_films_of_one_uid_are_flagged_in_every_count(net, tmp_path):
    folder, out = tmp_path / "films", tmp_path / "results.h5"
    folder.mkdir()
    run = ["predict", folder, "-m", net, "--labels", "a,b", "-o", out, "--device", "cpu", "--workers", 0, "--add"]
    for uid, names, said in (("1.2", "ab", "2 flagged"), ("1.3", "c", "1 ok, 2 flagged"), ("1.3", "d", "4 flagged")):
        for i, name in enumerate(names):
            pixels = (np.indices((48, 48))[0] * (ord(name) - 60 + i)).astype("<u2").tobytes()
            (folder / f"{name}.dcm").write_bytes(as_bytes(film(SOPInstanceUID=uid, PixelData=pixels)))
        told = CliRunner().invoke(app, [str(word) for word in run])
        assert f": {said} (" in told.output, told.output + told.stderr
        with cxrx.open_results(out) as results:
            assert ", ".join(f"{n} {word}" for word, n in results.counts().items()) == said

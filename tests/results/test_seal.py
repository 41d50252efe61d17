"""A file tells of every byte that is not the one that was written, and no damage keeps a command for ever."""

from __future__ import annotations

import re
import shutil

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from cxrx.cli import app
from cxrx.errors import ResultsError
from cxrx.importing.maps import import_maps
from cxrx.results import seal
from cxrx.results.contents import load_part
from cxrx.results.merge import merge
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.reader import open_results
from cxrx.results.seal import look_first, seal_of
from cxrx.results.verify import not_covered, verify


@pytest.fixture(scope="module")
def sound(tmp_path_factory, made):
    store = PartStore(tmp_path_factory.mktemp("sound") / "results.h5")
    store.write(made.part(range(4), methods=("gradcam", "smoothgrad"), spaces=("native", "input")), 0)
    pack(store, store.out, truth=made.truth([0]), run={})
    return store.out


def flip(path, at, mask=1):
    raw = bytearray(path.read_bytes())
    raw[at] ^= mask
    path.write_bytes(raw)


def zero(path, at):
    """Zero the sector that begins at `at`, as a disk loses them."""
    raw = bytearray(path.read_bytes())
    raw[at : at + 512] = bytes(len(raw[at : at + 512]))
    path.write_bytes(raw)


def circles(path):
    """Return a sector whose loss makes HDF5 go round: the texts of a heap end where the next has a size."""
    return (path.read_bytes().index(b"GCOL") // 512 + 1) * 512


def test_every_byte_counts_those_of_the_checksum_too(out):
    raw = out.read_bytes()
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, len(raw), 400).tolist(), *range(len(raw) - 78, len(raw))]
    for at in places:
        out.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << int(rng.integers(8)))]) + raw[at + 1 :])
        assert seal_of(out) != "whole", at
    assert all(seal_of(out) != "whole" for size in range(len(raw) - 90, len(raw)) if out.write_bytes(raw[:size]))


@pytest.mark.parametrize("path", ["truth/labels", "truth/boxes/xywh", "images/status", "images/rows"])
def test_a_flipped_bit_where_hdf5_has_no_checksum(out, path):
    with h5py.File(out) as file:
        at = file[path].id.get_offset()
    flip(out, at)
    assert "its bytes are not those that were written" in verify(out)[0]


def test_a_changed_attribute_and_a_lost_checksum(out):
    flip(out, out.read_bytes().index(b"height of the source"))
    assert verify(out)
    shutil.copy(out, out.with_name("edited.h5"))
    with h5py.File(out.with_name("edited.h5"), "r+") as file:
        file["truth/labels"][0, 0] = 1
    assert any("another program has opened it for writing" in problem for problem in verify(out.with_name("edited.h5")))


def test_plain_readers_see_nothing_of_it(out):
    with h5py.File(out) as file:
        assert file.attrs["complete"] == 1
    assert out.read_bytes().endswith(b"\n")


def test_an_old_file_is_read_and_says_what_is_not_covered(out):
    with h5py.File(out, "r+") as file:  # which cuts the checksum off
        file.attrs["schema_version"] = "1.0"
    assert verify(out) == []
    open_ = not_covered(out)
    assert {"/truth/labels", "/truth/boxes/xywh", "/images/status", "/image_id"} <= set(open_)
    assert not [name for name in open_ if name.endswith(("/values", "/logit"))]
    shown = CliRunner().invoke(app, ["verify", str(out)])
    assert shown.exit_code == 0
    assert "no checksum covers its attributes" in shown.stdout


def test_what_writes_a_file_seals_it(out, made, tmp_path):
    assert not_covered(out) == []
    store = PartStore(out)
    store.write(made.part([7], methods=("rise",)), 0)
    pack(store, out, truth=None, run={})
    merge([out], tmp_path / "merged.h5")
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps/1__Mass.npy", np.ones((3, 4)))
    written = [out, tmp_path / "merged.h5", import_maps(tmp_path / "maps", out=tmp_path / "theirs.h5")]
    assert [seal_of(path) for path in written] == ["whole"] * 3
    assert [verify(path) for path in written] == [[]] * 3


def test_a_damaged_file_gets_no_new_checksum(out, made, tmp_path):
    with h5py.File(out) as file:
        at = file["truth/labels"].id.get_offset()
    flip(out, at)
    store = PartStore(out)
    store.write(made.part([7]), 0)
    for write in (lambda: pack(store, out, truth=None, run={}), lambda: merge([out], tmp_path / "merged.h5")):
        with pytest.raises(ResultsError, match="not those that were written"):
            write()
    assert store.paths()


def test_a_damaged_file_is_read_with_a_warning(out, caplog):
    with h5py.File(out) as file:
        at = file["images/status"].id.get_offset()
    flip(out, at)
    with open_results(out) as results:
        assert results.images()["status"].tolist() == ["flagged", "ok", "ok", "ok"]
    assert "cxrx verify" in caplog.text


def test_a_file_that_goes_while_it_is_opened_is_closed_and_told_of(out, monkeypatch):
    def gone(path):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("cxrx.results.reader.seal_at_once", gone)
    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    with pytest.raises(ResultsError):
        open_results(out)
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == before


@pytest.mark.parametrize("harm", ["flipped", "cut"])
def test_a_damaged_part_is_refused(store, made, harm):
    path = store.write(made.part([0, 1]), 0)
    raw = path.read_bytes()
    with h5py.File(path) as file:
        at = file["private/records"].id.get_offset()
    changed = raw[: at + 30] + bytes([raw[at + 30] ^ 1]) + raw[at + 31 :]
    path.write_bytes(changed if harm == "flipped" else raw[: raw.rindex(b"\ncxrx")])
    with pytest.raises(ResultsError, match="damaged") as error:
        load_part(path)
    assert "works on its films again" in error.value.hint


# ---------------------------------------------------------------------------------------------------------------------
# Files that HDF5 does not come to an end with


COMMANDS = (
    ("verify",), ("info",), ("info", "--json"), ("export", "--csv"), ("compare",), ("explain", "--method", "edge"),
    ("merge", "results.h5", "-o", "new.h5"),
)  # fmt: skip


@pytest.mark.parametrize("old", [False, True])
def test_a_circle_ends_in_a_sentence(out, monkeypatch, old):
    monkeypatch.setattr(seal, "LOOK_SECONDS", 1)
    monkeypatch.chdir(out.parent)
    if old:
        with h5py.File(out, "r+") as file:
            file.attrs["schema_version"] = "1.0"
    zero(out, circles(out))
    for words in COMMANDS:
        shown = CliRunner().invoke(app, [words[0], out.name, *words[1:]])
        assert shown.exit_code == 1, shown.output
        assert "damaged: " in shown.output + shown.stderr
        assert "internal error" not in shown.output + shown.stderr


def test_groups_within_groups_without_end(out, monkeypatch):
    monkeypatch.setattr(seal, "LOOK_SECONDS", 1)
    with h5py.File(out, "r+") as file:
        for i in range(30):
            file[f"runs/{i}"] = file["/"]
    assert "does not come to an end" in verify(out)[0]


@pytest.mark.parametrize("mark", [b"OHDR", b"OCHK", b"FRHP", b"BTHD"])
def test_a_broken_header_is_a_problem_and_no_error(out, mark):
    raw = out.read_bytes()
    places = [found.start() for found in re.finditer(mark, raw)]
    assert places
    for at in places[:: max(1, len(places) // 4)]:
        out.write_bytes(raw[: at + 12] + bytes([raw[at + 12] ^ 1]) + raw[at + 13 :])
        assert verify(out)
        for words in (["verify"], ["info"], ["export", "--csv"]):
            shown = CliRunner().invoke(app, [words[0], str(out), *words[1:]])
            assert shown.exit_code in ({1} if words[0] == "verify" else {0, 1, 2}), shown.output
            assert "internal error" not in shown.output + shown.stderr


def test_a_reader_that_crashes_ends_in_a_sentence(out, monkeypatch):
    monkeypatch.setattr(seal, "_look", lambda *_: -11)
    flip(out, 5000)
    with pytest.raises(ResultsError, match="HDF5 breaks down on it"):
        look_first(out)


def test_a_sound_file_is_not_looked_at_first(out, monkeypatch):
    monkeypatch.setattr(seal, "_look", lambda *_: pytest.fail("a child for a sound file"))
    with open_results(out):
        pass
    monkeypatch.setattr(seal, "SMALL", 0)  # as if it were too large to be hashed at every opening
    monkeypatch.setattr(seal, "_look", lambda *_: 0)
    with open_results(out) as results:
        assert len(results.image_ids) == 4


@pytest.mark.slow
def test_no_lost_sector_keeps_a_command_or_breaks_it(sound, tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "LOOK_SECONDS", 1)
    raw = sound.read_bytes()
    for at in range(0, len(raw), 512):
        out = tmp_path / f"{at}.h5"
        out.write_bytes(raw)
        zero(out, at)
        if out.read_bytes() == raw:
            continue
        for words in (["verify", out], ["info", out], ["export", out, "--csv"], ["compare", out, "--n-boot", 10]):
            shown = CliRunner().invoke(app, [str(word) for word in words])
            assert shown.exit_code in ({1} if words[0] == "verify" else {0, 1, 2}), (at, words, shown.output)
            assert "internal error" not in shown.output + shown.stderr, (at, words, shown.stderr)
        out.unlink()

"""Every kind of damage is found and named; a sound file has no problems."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from cxrx.importing.maps import import_maps
from cxrx.results.contents import Contents
from cxrx.results.pack import pack
from cxrx.results.parts import PartStore
from cxrx.results.private import private_path
from cxrx.results.verify import verify

NET = "tiny@0123abcd"
CAM, PIXELS, PREDICTIONS = f"maps/{NET}/gradcam", f"maps/{NET}/smoothgrad", f"predictions/{NET}"


@pytest.fixture(scope="module")
def sound(tmp_path_factory, made):
    store = PartStore(tmp_path_factory.mktemp("sound") / "results.h5")
    store.write(made.part(range(4), methods=("gradcam", "smoothgrad"), spaces=("native", "input")), 0)
    store.write(Contents([made.film(9)], [made.failure(None)]), 4)
    pack(store, store.out, truth=made.truth([0]), run={})
    assert verify(store.out) == []
    return store.out


def setting(path, value, where=0):
    def change(file):
        file[path][where] = value

    return change


def dropping(path):
    def change(file):
        del file[path]

    return change


def attribute(path, name, value):
    def change(file):
        if value is None:
            del file[path].attrs[name]
        else:
            file[path].attrs[name] = value

    return change


def marking(path, value):
    """Mark a map present that is not there, or the other way round."""

    def change(file):
        i, k = np.argwhere(file[f"{path}/present"][...] != value)[0]
        file[f"{path}/present"][i, k] = value

    return change


def other_size(file):
    del file[f"{CAM}/score"]
    file[f"{CAM}/score"] = np.zeros((2, 3), np.float32)


def half_precision(file):
    del file[f"{CAM}/score"]
    file[f"{CAM}/score"] = np.zeros((5, 3), np.float16)


def unlisted_film(file):
    file["truth/boxes/image"][0] = "f" * 16


DAMAGE = {
    "a missing group": (dropping("runs"), "/runs is missing"),
    "a missing column": (dropping("images/view"), "/images/view is missing"),
    "a missing array": (dropping(f"{PREDICTIONS}/logit"), "damaged"),
    "unfinished": (attribute("/", "complete", 0), "unfinished"),
    "foreign": (attribute("/", "format", "netcdf"), "not one of cxrx"),
    "another schema": (attribute("/", "schema_version", "7.0"), "schema version 7.0"),
    "a film twice": (lambda f: setting("image_id", f["image_id"][0], 1)(f), "lists a film twice"),
    "an id that is none": (setting("image_id", "film 1"), "not 16 hex digits"),
    "another sha256": (setting("images/sha256", "0" * 64), "sha256 does not fit"),
    "a status that is none": (setting("images/status", 9), "status holds numbers above 3"),
    "a patient who is not the smallest": (setting("images/patient", "f" * 16), "smallest image_id"),
    "changed settings": (attribute(CAM, "settings", '{"seed": 1}'), "not that of its settings"),
    "no settings": (attribute(PREDICTIONS, "settings", None), "not that of its settings"),
    "a finding not in the union": (setting(f"{CAM}/finding", "Gout"), "does not list Gout"),
    "a finding twice": (setting("finding", "Nodule"), "finding lists a finding twice"),
    "a probability above 1": (setting(f"{PREDICTIONS}/probability", 1.5, (0, 0)), "outside 0 to 1"),
    "a lost probability": (setting(f"{PREDICTIONS}/probability", np.nan, (0, 0)), "probability lacks numbers"),
    "a stray logit": (setting(f"{PREDICTIONS}/logit", 1.0, (4, 0)), "numbers where it is not present"),
    "a lost affine": (setting(f"{PREDICTIONS}/affine", np.nan, (0, 0, 0)), "affine lacks numbers"),
    "present that is neither": (setting(f"{PREDICTIONS}/present", 2, 0), "other numbers than 0 and 1"),
    "a lost map": (marking(CAM, 1), "lacks 1 maps"),
    "a stray map": (marking(CAM, 0), "holds 1 maps that are not marked"),
    "a lost map of pixels": (marking(PIXELS, 1), "lacks 1 maps"),
    "a stray map of pixels": (marking(PIXELS, 0), "holds 1 maps that are not marked"),
    "another size": (other_size, "another size"),
    "half precision": (half_precision, "float16"),
    "a label that is none": (setting("truth/labels", 5, (0, 0)), "other numbers than 1, 0, -1"),
    "a box of an unlisted film": (unlisted_film, "films that are not listed"),
    "a box without area": (setting("truth/boxes/xywh", 0.0, (0, 2)), "box without area"),
    "a mask that does not fill its shape": (setting("truth/masks/runs", 10_000), "do not fill its shape"),
    "a stage that is none": (setting("failures/stage", "lunch"), "holds lunch"),
    "no meaning": (attribute("images/rows", "units", None), "does not say its units"),
    "an axis without scale": (lambda f: f["images/rows"].dims[0].detach_scale(f["image_id"]), "without a scale"),
    "a link elsewhere": (lambda f: f.__setitem__("more", h5py.ExternalLink("x.h5", "/")), "link"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_the_content(out, kind):
    change, message = DAMAGE[kind]
    with h5py.File(out, "r+") as file:
        change(file)
    assert any(message in problem for problem in verify(out)), verify(out)


@pytest.mark.parametrize("path", [f"{CAM}/values", f"{PIXELS}/values", f"{PREDICTIONS}/affine", f"{CAM}/extras/mask"])
def test_a_flipped_bit_in_an_array(out, path):
    with h5py.File(out) as file:
        info = file[path].id.get_chunk_info(0)
    raw = bytearray(out.read_bytes())
    raw[info.byte_offset + info.size // 2] ^= 0x10
    out.write_bytes(raw)
    assert any(path in problem and "cannot be read" in problem for problem in verify(out)), verify(out)


@pytest.mark.parametrize("keep", [0, 10, 1000, 0.5, 0.95, 0.999])
def test_a_truncated_file(out, keep):
    raw = out.read_bytes()
    out.write_bytes(raw[: int(keep * len(raw)) if isinstance(keep, float) else keep])
    assert verify(out)


def test_a_missing_file_and_a_file_of_another_kind(out):
    assert "no results file" in verify(out.with_name("none.h5"))[0]
    out.write_bytes(b"GIF89a")
    assert "not a results file" in verify(out)[0]


def test_the_link_table(out):
    table = private_path(out)
    table.chmod(0o644)
    assert "others than its owner" in verify(out)[0]
    table.chmod(0o600)
    table.write_text("a,b\n1,2\n")
    assert "damaged" in verify(out)[0]
    table.unlink()
    assert verify(out) == []


RAGGED = "maps/imported/imported"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting(f"{RAGGED}/image", "f" * 16), "not listed"),
        (setting(f"{RAGGED}/start", 3), "one after the other"),
        (setting(f"{RAGGED}/shape", (1, 1), 1), "another size|one after the other"),
        (lambda f: setting(f"{RAGGED}/image", f[f"{RAGGED}/image"][0], 1)(f), "two maps of one film"),
    ],
)
def test_imported_maps(tmp_path, change, message):
    folder = tmp_path / "maps"
    folder.mkdir()
    for i in range(2):
        np.save(folder / f"{i}__Mass.npy", np.ones((3 + i, 4)))
    out = import_maps(folder, out=tmp_path / "results.h5")
    assert verify(out) == []
    copy = tmp_path / "copy.h5"
    shutil.copy(out, copy)
    with h5py.File(copy, "r+") as file:
        change(file)
    assert any(part in problem for problem in verify(copy) for part in message.split("|")), verify(copy)

"""Results files, tables, weights, configurations and archives that are damaged, odd or made to do harm.

Every function takes a folder of its own, draws from `rng`, writes what is to be read there, and returns how it was made
and the commands to run. A word that begins with ``@`` is a check of :mod:`tests.fuzz.child`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.torch import save as save_safetensors

from tests.fuzz import films

Commands = list[list[str]]
RUN = ["-m", "../../base/net.py:build", "--labels", "Effusion,Nodule", "--device", "cpu", "--workers", "0"]
BASE = "../../base/results.h5"
FILM = "../../base/data/films/000001.dcm"


def base(folder: Path) -> Commands:
    """Make what the others start from: six films with their truth, a network, and a results file."""
    from cxrx.phantom import write_folder
    from tests.conftest import NET

    write_folder(folder / "data", 6, 0, size=(96, 80))
    (folder / "net.py").write_text(NET)
    run = [*RUN[:1], "net.py:build", *RUN[2:], "-o", "results.h5"]
    return [["explain", "data", "--method", "gradcam", "--method", "random", *run], ["verify"], ["info"]]


# ---------------------------------------------------------------------------------------------------------------------
# Results files


def results(folder: Path, rng: random.Random) -> tuple[str, Commands]:
    whole = (folder / BASE).read_bytes()
    table = (folder / BASE).with_name("results.private.csv").read_bytes()
    change = rng.choice((films.flip, films.overwrite, films.truncate, films.zero_tail, films.insert, sectors, sectors,
                         flip_anywhere, flip_data, flip_data, films.numbers, None, None))  # fmt: skip
    how = change.__name__ if change else "h5py"
    path = folder / "results.h5"
    path.write_bytes(change(rng, whole) if change else whole)
    if change is None:
        how = f"h5py {rework(rng, path)}"
    elif rng.random() < 0.1:
        path.write_bytes(whole)
        table, how = rng.choice(films.ANY)(rng, table), f"link table {how}"
    links = path.with_name("results.private.csv")
    links.write_bytes(table)
    links.chmod(0o600)
    (folder / "evil.py").write_text(EVIL)
    more = [["export", "--csv", "-o", "long.csv"], ["export", "--png", "-o", "png", "--grid"], ["info", "--json"],
            ["compare", "--metrics", "fast", "--n-boot", "10"], ["merge", "results.h5", BASE, "-o", "m.h5"],
            ["explain", "--method", "edge", "--device", "cpu", "--workers", "0"], ["predict", "../../base/data", *RUN],
            ["compare", "--metrics", "randomisation", "--n-boot", "10", "--max-pairs", "2"]]  # fmt: skip
    return how, [["info"], ["verify"], ["@same", BASE if change else ""], rng.choice(more), ["@ran"]]


def flip_data(rng: random.Random, data: bytes) -> bytes:
    """Flip one bit in the numbers or texts of a data set, where nothing else is hurt."""
    with h5py.File(io.BytesIO(data)) as file:
        sets: list[h5py.Dataset] = []
        file.visititems(lambda _, thing: sets.append(thing) if isinstance(thing, h5py.Dataset) and thing.size else None)
        chosen = rng.choice(sets)
        start, size = chosen.id.get_offset(), chosen.id.get_storage_size()
        if start is None and chosen.chunks and chosen.id.get_num_chunks():
            chunk = chosen.id.get_chunk_info(rng.randrange(chosen.id.get_num_chunks()))
            start, size = chunk.byte_offset, chunk.size
    at = start + rng.randrange(size) if start and size else rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def flip_anywhere(rng: random.Random, data: bytes) -> bytes:
    """Flip one bit, anywhere."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def sectors(rng: random.Random, data: bytes) -> bytes:
    """Zero, swap or scramble sectors of 512 bytes."""
    out, n = bytearray(data), len(data) // 512
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, other = 512 * rng.randrange(n), 512 * rng.randrange(n)
        out[at : at + 512] = rng.choice((bytes(512), data[other : other + 512], rng.randbytes(512)))
    return bytes(out)


def rework(rng: random.Random, path: Path) -> str:
    """Change the file as another program could; return how."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = rng.choice(names)
        value = rng.choice(ODD)
        how = rng.choice(("drop", "attribute", "replace", "loop", "external", "model", "group", "drop attribute"))
        if how in {"drop", "replace", "loop", "external", "group"}:
            del file[name]
        if how == "attribute":
            file[name].attrs[rng.choice([*file[name].attrs, "units"])] = value
        elif how == "drop attribute" and len(file[name].attrs):
            del file[name].attrs[rng.choice([*file[name].attrs])]
        elif how == "replace":
            file[name] = value
        elif how == "loop":
            file[name] = h5py.SoftLink(f"/{name}")
        elif how == "external":
            file[name] = h5py.ExternalLink("/etc/hostname", "/")
        elif how == "group":
            file.create_group(name)
        elif how == "model":
            model = next(iter(file["predictions"]))
            for room in "predictions", "maps":
                file.move(f"{room}/{model}", f"{room}/{rng.choice(('evil.py:build', 'x', '..', 'é' * 100))}")
    return f"{how} {name} {str(value)[:20]!r}"


ODD = ("", "abc", "./evil.py:build", "{", "[1]", '{"a": ' * 200, 0, -1, 2**63 - 1, float("nan"), "é\n\0"[:2],
       np.zeros(3), np.zeros((2, 2), "f4"), np.zeros(0), np.array(["a", "b"], h5py.string_dtype()),
       np.array([b"\xff\xfe"], "S2"), np.zeros(2, [("a", "i4")]), h5py.Empty("f4"))  # fmt: skip
EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\ndef build(labels): raise SystemExit\n"

# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _names(n: int = 6) -> list[str]:
    return [f"{i + 1:06d}" for i in range(n)]


def layouts() -> dict[str, str]:
    """Return tables of every layout that speak of the six films: name to text."""
    names = _names()

    def text(head: str, row: str) -> str:
        return "\n".join([head, *(row.format(n=name, i=i, b=i % 2) for i, name in enumerate(names))]) + "\n"

    return {
        "truth.csv": text("path,Effusion,Nodule,patient,view", "films/{n}.dcm,{b},{i},P{i},PA").replace(",2,", ",1,"),
        "labels.csv": text("path,label", "films/{n}.dcm,Effusion"),
        "boxes.csv": text("path,finding,x,y,w,h", "films/{n}.dcm,Nodule,{i},10,20,30.5"),
        "Data_Entry_2017.csv": text(
            "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position",
            "{n}.dcm,Effusion|Nodule,0,{i},58,M,PA"),
        "BBox_List_2017.csv": text("Image Index,Finding Label,Bbox [x,y,w,h],,,", "{n}.dcm,Nodule,{i},10,20,30"),
        "stage_2_train_labels.csv": text("patientId,x,y,width,height,Target", "{n},10,20,30,40,1"),
        "train.csv": text("Path,Sex,Age,Frontal/Lateral,AP/PA,Edema", "films/{n}.dcm,F,60,Frontal,AP,-1.0"),
        "annotations.csv": text("image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", "{n},Mass,8,R,1,2,3,4"),
        "train-rle.csv": text("ImageId,EncodedPixels", "{n},100 5 80 7"),
        "classes.csv": text("dicom_id,subject_id,study_id,Edema,Pneumonia", "{n},1{i},5{i},1.0,0.0"),
    }  # fmt: skip


SAME: dict[str, Callable[[str], bytes]] = {
    "BOM": lambda t: b"\xef\xbb\xbf" + t.encode(),
    "UTF-16": lambda t: t.encode("utf-16"),
    "UTF-16-BE": lambda t: b"\xfe\xff" + t.encode("utf-16-be"),
    "CRLF": lambda t: t.replace("\n", "\r\n").encode(),
    "CR": lambda t: t.replace("\n", "\r").encode(),
    "blank lines": lambda t: t.replace("\n", "\n\n").encode(),
    "semicolons": lambda t: _written(t, ";"),
    "tabs": lambda t: _written(t, "\t"),
    "bars": lambda t: _written(t, "|"),
    "quoted": lambda t: _written(t, ",", quoting=csv.QUOTE_ALL),
    "no last line break": lambda t: t.rstrip("\n").encode(),
    "upper header": lambda t: (t.partition("\n")[0].upper() + "\n" + t.partition("\n")[2]).encode(),
    "spaces": lambda t: t.replace(",", " , ").encode(),
    "reversed": lambda t: "\n".join([t.split("\n")[0], *t.strip().split("\n")[:0:-1], ""]).encode(),
    "index column": lambda t: "\n".join(f"{i or ''},{x}" for i, x in enumerate(t.strip().split("\n"))).encode(),
    "zero bytes at the end": lambda t: t.encode() + bytes(8),
    "latin-1 remark": lambda t: _with_remark(t).encode("latin-1"),
}
"""Ways to write a table that change nothing of what it says."""


def _rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def _written(text: str, delimiter: str, **options: int) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\n", **options).writerows(_rows(text))
    return out.getvalue().encode()


def _with_remark(text: str) -> str:
    head, *rows = text.strip().split("\n")
    return "\n".join([f"{head},Bemerkung", *(f"{row},Größe" for row in rows), ""])


CELLS = ("", "nan", "NaN", "inf", "-inf", "1e400", "-1", "2", "0.5", "1,5", "yes", "ja", "TRUE", "positive", "é" * 300,
         "\0", "=1+1", "../../etc/passwd", "/", "films", "1|2", "|||", "9" * 400, " ", "\u202e", "\ud800", "a\nb", '"',
         "films/000001.dcm/x", "1 2 3", "-5 -5", "1 99999999999")  # fmt: skip


def change_cells(rng: random.Random, text: str) -> bytes:
    """Put odd cells, rows and columns into a table."""
    rows = _rows(text)
    for _ in range(rng.choice((1, 1, 3, 10))):
        row, j, n = rng.choice(rows), rng.randrange(len(rows[0]) or 1), rng.choice((1, 1, 300))
        match rng.randrange(8):
            case 0 | 1:
                row[j : j + 1] = [rng.choice(CELLS)] * n
            case 2:
                rows.insert(rng.randrange(len(rows)), rng.choice((rows[0], row * 2)))
            case 3:
                del row[j:]
            case 4:
                rows += [row] * n
            case 5:
                rows[0] += rows[0][-1:] * n
            case 6:
                rows = [[*row[:j], rng.choice(CELLS), *row[j:]] for row in rows]
            case 7:
                rows = [row[:j] + row[j + 1 :] for row in rows]
    out = io.StringIO()
    csv.writer(out, delimiter=rng.choice((",", ",", ";", "\t"))).writerows(rows)
    return out.getvalue().encode(rng.choice(("utf-8", "utf-16", "latin-1", "utf-7")), "replace")


def link_films(folder: Path) -> None:
    """Put the films that tables speak of into `folder`."""
    (folder / "films").mkdir()
    for name in _names():
        os.link(folder / f"../../base/data/films/{name}.dcm", folder / f"films/{name}.dcm")


def maps(folder: Path, rng: random.Random) -> tuple[str, Commands]:
    """Maps of another program: of odd shapes and types, one of them damaged or with an object that runs code."""
    shapes = [np.zeros(shape) for shape in ((7, 7), (0, 7), (7,), (2, 7, 7), ())]
    types = [np.zeros((7, 7), kind) for kind in ("i8", "c16", "U3", "?", "M8[s]")]
    arrays = [*shapes, *types, np.full((7, 7), np.nan), np.array([Evil()], object)]
    chosen = rng.randrange(len(arrays))
    for name, array in ("000001", arrays[0]), ("000002", arrays[chosen]):
        out = io.BytesIO()
        np.save(out, array)
        change = rng.choice((*films.ANY, films.numbers)) if name == "000002" and rng.random() < 0.6 else None
        data = change(rng, out.getvalue()) if change else out.getvalue()
        (folder / f"{name}__Nodule.npy").write_bytes(data)
    (folder / "boxes.csv").write_text(layouts()["boxes.csv"])
    return f"maps {chosen}", [["import-maps", ".", "--truth", "boxes.csv", "-o", "m.h5"], ["@ran"]]


def tables(folder: Path, rng: random.Random) -> tuple[str, Commands]:
    if rng.random() < 0.15:
        return maps(folder, rng)
    link_films(folder)
    name, text = rng.choice(sorted(layouts().items()))
    way = rng.choice(("same", "cells", "cells", "bytes", "json"))
    check: Commands = []
    if way == "same":
        how, change = rng.choice(sorted(SAME.items()))
        data, check = change(text), [["@truth", name, text]]
    elif way == "json":
        name, how = "gt_segmentations_test.json", "json"
        mask = {"size": [96, 80], "counts": rng.choice(("abc", "", [5, 5], None, "0" * 5000))}
        data = json.dumps({"films_000001.dcm": {"Nodule": mask, "Effusion": rng.choice((mask, 3, []))}}).encode()
        data = rng.choice((lambda _, d: d, *films.ANY))(rng, data)
    else:
        change = change_cells if way == "cells" else rng.choice(films.ANY)
        how, data = change.__name__, change(rng, text if way == "cells" else text.encode())
    (folder / name).write_bytes(data)
    scored = ["compare", BASE, "--truth", name, "--metrics", "localisation", "--out", "r", "--n-boot", "10"]
    more = [["predict", ".", *RUN], scored, ["datasets", "show", "."], ["predict", "films", "--truth", name, *RUN]]
    return f"{name} {how}", [["datasets", "show", ".", "--json"], *check, rng.choice(more)]


# ---------------------------------------------------------------------------------------------------------------------
# Weights


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


def weights(folder: Path, rng: random.Random) -> tuple[str, Commands]:
    space: dict[str, object] = {}
    exec((folder / "../../base/net.py").read_text(), space)
    tensors = dict(space["build"](("Effusion", "Nodule")).state_dict())
    how = rng.choice(("whole", "key", "shape", "tensor", "content", "nest", "evil", "bytes", "bytes", "bytes"))
    content: object = _reworked(rng, how, tensors)
    form = rng.choice(("pt", "legacy", "pickle", "safetensors", "header")[: 3 if how == "evil" else 5])
    path = folder / f"w{rng.choice(('.pth', '.pt', '.tar', '.ckpt', '.bin', '.h5', ''))}"
    out = io.BytesIO()
    if form in {"safetensors", "header"}:
        path = folder / "w.safetensors"
        plain = {str(k): v.contiguous() for k, v in tensors.items() if type(v) is torch.Tensor and _is_plain(v)}
        data = save_safetensors(plain)
        out.write(_header(rng, data) if form == "header" else data)
    elif form == "pickle":
        pickle.dump(content, out, protocol=rng.choice((0, 2, 4)))
    else:
        torch.save(content, out, _use_new_zipfile_serialization=form == "pt")
    data = out.getvalue()
    if how == "bytes":
        change = rng.choice(films.ANY)
        data, how = change(rng, data), f"bytes {change.__name__}"
    path.write_bytes(data)
    use = ["predict", FILM, *RUN, "--weights", path.name]
    more = rng.choice((["weights", "convert", path.name, "out.safetensors"], ["predict", FILM, "--weights", path.name]))
    return f"{form} {how}", [["weights", "show", path.name], use, more, ["@ran"]]


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"


def _reworked(rng: random.Random, how: str, tensors: dict[str, object]) -> object:
    """Change a state dict in place, or return something else."""
    key = rng.choice(list(tensors))
    own = tensors[key]
    dtype = rng.choice((torch.int8, torch.bool, torch.complex64, torch.float16, torch.bfloat16, torch.float64))
    odd = {
        "shape": (torch.zeros(0), torch.zeros(()), own[None], torch.zeros(3, 0, 7), own.expand(2, *own.shape)),
        "tensor": (own.to(dtype), own * torch.nan, own.to_sparse(), own.numpy(), own.to("meta"),
                   torch.nn.Parameter(own), torch.quantize_per_tensor(own, 0.1, 0, torch.qint8)),
        "content": (None, 3, "text", [1, 2], {"a": 1}, np.zeros(3), torch.Size((1, 2)), b"bytes", 1j, Path("x")),
    }  # fmt: skip
    if how in odd:
        tensors[key] = rng.choice(odd[how])
    elif how == "key":
        names = ("", "x" * 5000, "a\0b", "module." * 40 + key, 3, None, "é", f"{key}.", "..", f"model.{key}")
        tensors[rng.choice(names)] = tensors.pop(key)
    elif how == "nest":
        labels, arch = rng.choice((["a"], "a,b", 3, [None], {"a": 0})), rng.choice((3, "x", None))
        loop: dict[str, object] = {**tensors}
        loop["loop"] = loop
        return rng.choice((
            {"state_dict": tensors, "epoch": 3}, {"model": {"model": {"state_dict": tensors}}}, [tensors], (tensors, 1),
            {"state_dict": tensors, "labels": labels, "arch": arch}, {"state_dict": 3}, {"state_dict": {}}, loop, 3,
            None, [], {}, "x",
        ))  # fmt: skip
    elif how == "evil":
        return rng.choice(
            ({"state_dict": tensors, "x": Evil()}, Evil(), {"state_dict": Evil()}, {**tensors, "x": [Evil()]})
        )
    return tensors


def _header(rng: random.Random, data: bytes) -> bytes:
    """Let the header of a safetensors file lie."""
    n = int.from_bytes(data[:8], "little")
    head, body = json.loads(data[8 : 8 + n]), data[8 + n :]
    entry = head[rng.choice([key for key in head if key != "__metadata__"])]
    lies = ({"data_offsets": [0, len(body)]}, {"data_offsets": [4, 0]}, {"dtype": "F8"}, {"dtype": 3}, {"shape": []},
            {"shape": [2**40]}, {"dtype": "I32"}, {"shape": [2, 2**62]}, {"dtype": "BF16"})  # fmt: skip
    entry.update(rng.choice(lies))
    head["__metadata__"] = rng.choice(({"a": "1"}, {"labels": "["}, {"cxrx": "{"}, {"a": 1}, {}))
    text = json.dumps(head).encode()
    return rng.choice((len(text), len(text), len(text), 0, 2**62, len(text) - 1)).to_bytes(8, "little") + text + body


# ---------------------------------------------------------------------------------------------------------------------
# Configurations

VALUES = ('""', '"auto"', "3", "-1", "0", "true", "nan", "inf", "1e400", "[]", '["a", "b"]', "[[1]]", "{a = 1}",
          "1979-05-27", '"./evil.py:build"', '"../out.h5"', '"/nowhere/x.h5"', '"é\\u0000"', "9" * 40, '"softmax"',
          f'"{"x" * 5000}"')  # fmt: skip
_KEYS = """model weights out device workers batch-size batch_size limit labels views seed json truth resume method
targets input-size in-chans dtype voi-index frame metrics nonsense"""
KEYS = _KEYS.split()
TABLES = (
    "predict",
    "explain",
    "compare",
    "info",
    "models",
    "datasets",
    "weights",
    "nonsense",
    "predict.deep",
    "models.a",
)


def configs(folder: Path, rng: random.Random) -> tuple[str, Commands]:
    lines = [f"{rng.choice(KEYS)} = {rng.choice(VALUES)}" for _ in range(rng.choice((1, 1, 2, 3)))]
    if rng.random() < 0.6:
        lines.insert(rng.randrange(len(lines) + 1), f"[{rng.choice(TABLES)}]")
    text, how = "\n".join(lines), "values"
    data = text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig")))
    if rng.random() < 0.2:
        change = rng.choice(films.ANY)
        data, how = change(rng, data), change.__name__
    if rng.random() < 0.05:
        data, how = rng.choice((b"a = " + b"[" * 5000, b"[a" + b".a" * 5000 + b"]", b"a." * 3000 + b"b = 1")), "deep"
    (folder / "cxrx.toml").write_bytes(data)
    (folder / "evil.py").write_text(EVIL)
    more = (["predict", FILM, *RUN], ["predict", FILM], ["explain", FILM, "--method", "edge", *RUN], ["info", BASE],
            ["models"], ["compare", BASE, "--metrics", "localisation", "--n-boot", "10", "--out", "r"],
            ["explainers"], ["datasets", "show", "../../base/data"])  # fmt: skip
    return f"{how} {text[:80]!r}", [rng.choice(more), rng.choice(more), ["@ran"]]


CASES = {"results": results, "tables": tables, "weights": weights, "configs": configs}

# ---------------------------------------------------------------------------------------------------------------------
# Archives


def archive(seed: int, index: int) -> tuple[str, str, bytes, set[str]]:
    """Return (how, suffix, bytes, names of the films in it that must be found; none where it is damaged)."""
    rng = random.Random(f"archive {seed} {index}")
    names = [f"{index:04d}-{i}.dcm" for i in range(rng.randrange(1, 5))]
    odd = rng.choice(("", "", "../up.dcm", "/root.dcm", "é\udcff.dcm", "a" * 300 + ".dcm", "d/e/f.dcm", "C:\\x.dcm",
                      ".hidden.dcm", "note.txt", "in.zip", "a\nb.dcm", names[0]))  # fmt: skip
    bodies = [films.film(seed, 1_000_000 + 10 * index + i)[2] for i in range(len(names))]
    expected = set(names)
    if odd:
        names, bodies = [*names, odd], [*bodies, films.film(seed, 1_000_009 + 10 * index)[2]]
    suffix = rng.choice((".zip", ".zip", ".zip", ".tar", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))
    data = _zipped(rng, names, bodies) if suffix == ".zip" else _tarred(suffix, names, bodies)
    how = [suffix, ascii(odd)[:20]]
    if rng.random() < 0.6:
        change = rng.choice((*films.ANY, *films.ANY, _lie, _lie, _bomb))
        data, expected = change(rng, data) or b"\0", set()
        how.append(change.__name__)
    elif odd == names[0]:
        expected = set()  # two members of one name
    return " ".join(how), suffix, data, expected


def _zipped(rng: random.Random, names: list[str], bodies: list[bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((0, 8, 8, 12, 14))) as file:
        for name, body in zip(names, bodies, strict=True):
            file.writestr(name.encode("utf-8", "replace").decode(), body)
    return out.getvalue()


def _tarred(suffix: str, names: list[str], bodies: list[bytes]) -> bytes:
    out = io.BytesIO()
    packed = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(Path("x" + suffix).suffix, "w:")
    with tarfile.open(fileobj=out, mode=packed, format=tarfile.PAX_FORMAT, errors="surrogateescape") as file:
        for name, body in zip(names, bodies, strict=True):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            file.addfile(info, io.BytesIO(body))
    return out.getvalue()


def _lie(rng: random.Random, data: bytes) -> bytes:
    """Change the directory of a zip: method, flags, sizes, offsets; or the first header of a tar."""
    at = data.rfind(b"PK\x01\x02")
    out = bytearray(data)
    if at >= 0:
        place, form = rng.choice(((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (42, "<I")))
        struct.pack_into(
            form, out, at + place, rng.choice((0, 1, 9, 99, 0xFFFF, 0x7FFF)) * (1 if form == "<H" else 0x10001)
        )
    else:
        place = rng.choice((100, 124, 148, 156, 257))
        out[place : place + 12] = rng.choice(
            (b"77777777777\0", b"\xff" * 12, b"\0" * 12, b"-1         \0", b"S1xgLK345678")
        )
    return bytes(out)


def _bomb(rng: random.Random, data: bytes) -> bytes:
    """A member of half a gigabyte in few bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", 8, compresslevel=1) as file, file.open("big.dcm", "w", force_zip64=True) as member:
        member.write(films.make.film()[:-8])
        for _ in range(rng.choice((500, 1100))):
            member.write(bytes(1 << 20))
    return out.getvalue()

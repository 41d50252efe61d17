"""The kit sees what is wrong with metrics, readers, data sets and exporters."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from cxrx.specs import Box, DatasetSpec, ExporterSpec, Film, FilmTruth, Mask, MetricSpec, ReaderSpec, Unreadable
from cxrx.testing import check_dataset, check_exporter, check_metric, check_reader


def failed(outcomes):
    return {outcome.check: outcome.message for outcome in outcomes if not outcome.passed}


# ---------------------------------------------------------------------------------------------------------------------
# Metrics


def metric(compute, kind="localisation"):
    return MetricSpec("offender", kind, compute)


def in_place(a, b):
    a *= 2
    return {"sum": float(b.sum())}


def test_sound_metrics_pass():
    assert failed(check_metric(metric(lambda m, truth: {"mean": m.mean(), "share": truth.mean()}))) == {}
    assert failed(check_metric(metric(lambda a, b: {"dot": float((a * b).sum())}, "agreement"))) == {}
    faithful = metric(lambda model, x, maps, targets: {"drop": maps.mean(dim=(2, 3))}, "faithfulness")
    assert failed(check_metric(faithful)) == {}


@pytest.mark.parametrize(
    ("spec", "check", "message"),
    [
        (metric(lambda a, b: 0.5), "numbers", "dict of numbers"),
        (metric(lambda a, b: {}), "numbers", "dict of numbers"),
        (metric(lambda a, b: {"iou": "high"}), "numbers", "no number"),
        (metric(lambda a, b: {"iou": a}), "numbers", "no number"),
        (metric(lambda a, b: {"x": np.random.default_rng().random()}), "numbers", "twice gives other numbers"),
        (metric(in_place), "numbers", "changed its input"),
        (metric(lambda a, b: {"x": 1 / int(np.abs(a).sum())}), "map without evidence", "ZeroDivisionError"),
        (metric(lambda a, b: {"x": (a * b).sum()}), "numbers", "raised ValueError"),  # a mask is larger than a map
        (metric(lambda *call: {"x": call[2].mean()}, "faithfulness"), "numbers", "not (B, T) = (2, 2)"),
        (metric(lambda a, b: {"x": 1.0}, "location"), "declaration", "kind is one of"),
        (metric(lambda a, b: {"spearman": 1.0}, "agreement"), "names", "'spearman' is a number of cxrx/agreement"),
        (metric(lambda a, b: {"x": 1.0, "hit": 1.0}), "names", "'hit' is a number of cxrx/localisation"),
        (metric(lambda a, b: {"auprc": 1.0}), "names", "'auprc' is a number of cxrx/"),
        (metric(lambda a, b: {"area": 1.0}), "names", "'area' is a column of the table: choose another name"),
        (
            metric(lambda *call: {"deletion": call[2].mean(dim=(2, 3))}, "faithfulness"),
            "names",
            "'deletion' is a number of cxrx/deletion",
        ),
        (metric(lambda *call: {"finding": call[2].mean(dim=(2, 3))}, "faithfulness"), "names", "column of the table"),
    ],
)
def test_an_unsound_metric_is_caught(spec, check, message):
    assert message in failed(check_metric(spec))[check]


# ---------------------------------------------------------------------------------------------------------------------
# Readers: a toy format, "TOY", height, width, bytes


def sniff_toy(path, head):
    return head.startswith(b"TOY")


def open_toy(path):
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    height, width = content[3], content[4]
    if len(content) != 5 + height * width:
        yield Unreadable("failed", "truncated", "the pixels are cut short", digest)
        return
    pixels = np.frombuffer(content[5:], np.uint8).reshape(height, width).astype(np.float32) / 255
    yield Film(pixels, digest)


TOY = ReaderSpec("toy", sniff_toy, open_toy)


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample.toy"
    path.write_bytes(b"TOY" + bytes([4, 6]) + bytes(range(24)))
    return path


def read_as(**changes):
    def open_changed(path):
        for film in open_toy(path):
            yield replace(film, **{k: v(film) for k, v in changes.items()}) if isinstance(film, Film) else film

    return replace(TOY, open=open_changed)


def several(path):
    """Yield each row of pixels of a toy file as a film, and what is between them as none."""
    (film,) = open_toy(path)
    if isinstance(film, Unreadable):
        yield film
        return
    for i, row in enumerate(film.pixels):
        yield Film(row[None], hashlib.sha256(row.tobytes()).hexdigest(), f"row {i}")
        yield Unreadable("skipped", "gap", "this is no film", member=f"gap {i}")


def test_several_films_of_a_file_pass(sample):
    outcomes = {outcome.check: outcome for outcome in check_reader(replace(TOY, open=several), sample)}
    assert outcomes["sample"].passed
    assert outcomes["sample"].message == "4 films, 4 unreadable"


def test_films_without_digests_and_names_are_known_by_their_number(sample):
    def numbered(path):
        for film in several(path):
            if isinstance(film, Film):
                yield replace(film, sha256="", member="")

    assert failed(check_reader(replace(TOY, open=numbered), sample)) == {}


def test_a_film_decoded_from_bytes_is_the_one_that_is_opened(sample, tmp_path):
    def decode(data, options):
        (tmp_path / "copy").write_bytes(data)
        return next(open_toy(tmp_path / "copy"))

    assert failed(check_reader(replace(TOY, decode=decode), sample)) == {}


def test_without_a_sample_the_kit_says_that_one_checks_more():
    assert check_reader(TOY)[-1].message == "not tried: --sample FILE checks more"


def changes_the_file(path):
    path.write_bytes(path.read_bytes() + b"x")
    yield Film(np.zeros((2, 2), np.float32), "")


def restless(path):
    yield Film(np.random.default_rng().random((2, 2), dtype=np.float32), "")


def yields_twice(path):
    yield from open_toy(path)
    yield from open_toy(path)


def same_identity(path):
    for film in several(path):
        yield replace(film, sha256="0" * 64)


def test_a_sound_reader_passes(sample):
    outcomes = check_reader(TOY, sample)
    assert [outcome.check for outcome in outcomes] == ["declaration", "foreign files", "sample", "truncated sample"]
    assert failed(outcomes) == {}


def raises(path):
    raise ValueError("cut short")


def leaks_the_name(path):
    yield Unreadable("failed", "truncated", f"{path.name} is cut short")


@pytest.mark.parametrize(
    ("spec", "check", "message"),
    [
        (replace(TOY, name="To Y"), "declaration", "must be made of"),
        (replace(TOY, sniff=lambda path, head: True), "foreign files", "claims a file"),
        (replace(TOY, sniff=lambda path, head: head[0] == 84), "foreign files", "IndexError"),
        (replace(TOY, sniff=lambda path, head: None), "foreign files", "True or False"),
        (replace(TOY, sniff=lambda path, head: False), "sample", "does not know the sample"),
        (read_as(pixels=lambda film: film.pixels.astype(np.float64)), "sample", "float32"),
        (read_as(pixels=lambda film: film.pixels * 255), "sample", "[0, 1]"),
        (read_as(pixels=lambda film: film.pixels[None]), "sample", "(rows, columns)"),
        (read_as(sha256=lambda film: "0" * 64), "sample", "sha256"),
        (read_as(sha256=lambda film: "abc", member=lambda film: "a"), "sample", "64 hexadecimal digits"),
        (read_as(pixels=lambda film: film.pixels * np.nan), "sample", "[0, 1]"),
        (replace(TOY, open=lambda path: iter(())), "sample", "must yield"),
        (replace(TOY, open=lambda path: iter(["film"])), "sample", "not 'film'"),
        (replace(TOY, open=changes_the_file), "sample", "changes the file"),
        (replace(TOY, open=restless), "sample", "opening twice gives other films"),
        (replace(TOY, open=yields_twice), "sample", "each film of a file needs"),
        (replace(TOY, decode=lambda data, options: None), "sample", "decode must give the one film"),
        (replace(TOY, open=same_identity), "sample", "each film of a file needs"),
        (replace(TOY, open=raises), "truncated sample", "ValueError"),
        (replace(TOY, open=leaks_the_name), "truncated sample", "must not hold its name"),
    ],
)
def test_an_unsound_reader_is_caught(spec, check, message, sample):
    assert message in failed(check_reader(spec, sample))[check]


# ---------------------------------------------------------------------------------------------------------------------
# Data sets and exporters


class Toy:
    name = "toy"
    findings = ("Mass",)

    def truth(self, relative_path):
        return FilmTruth({"Mass": 1}) if relative_path == "a.png" else None


class Careless(Toy):
    def truth(self, relative_path):
        return {"Mass": 1}


DATASET = DatasetSpec("toy", lambda folder: (folder / "toy.csv").exists(), lambda folder: Toy())


@pytest.fixture
def folder(tmp_path):
    for name in ("toy.csv", "a.png", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_sound_data_set_passes(folder):
    outcomes = check_dataset(DATASET, folder)
    assert failed(outcomes) == {}
    assert outcomes[-1].message == "1 of 3 files have labels or boxes"


def test_without_a_folder_the_kit_says_that_one_checks_more():
    assert check_dataset(DATASET)[-1].message == "not tried: --sample FOLDER checks more"


@pytest.fixture
def pictured(folder):
    """The folder, with a picture of 6 rows and 8 columns in the place of the empty one."""
    from PIL import Image

    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(folder / "a.png")
    return folder


def test_boxes_and_masks_are_held_against_their_picture(pictured):
    fitting = says(boxes=(Box("Mass", 1, 2, 7, 4),), masks=(Mask("Mass", (6, 8), np.array([40, 8], dtype=np.uint32)),))
    outcomes = check_dataset(fitting, pictured)
    assert failed(outcomes) == {}
    assert outcomes[-1].message == "1 of 3 files have labels or boxes; boxes or masks of 1 lie inside their pictures"
    for beyond in (Box("Mass", 1, 2, 8, 4), Box("Mass", -1, 2, 2, 2), Box("Mass", 1, 3, 2, 4)):
        message = failed(check_dataset(says(boxes=(beyond,)), pictured))["folder"]
        assert message.startswith("a box reaches out of its picture of 6 x 8 pixels")
    turned = says(masks=(Mask("Mass", (8, 6), np.array([40, 8], dtype=np.uint32)),))
    assert "not of its picture's size (6, 8)" in failed(check_dataset(turned, pictured))["folder"]


def test_boxes_of_a_picture_that_nobody_reads_are_not_held_against_it(folder):
    outcomes = check_dataset(says(boxes=(Box("Mass", 1, 2, 99, 4),)), folder)
    assert outcomes[-1].message == "1 of 3 files have labels or boxes; boxes or masks of 0 lie inside their pictures"


def says(*args, **more):
    """Return a data set that says this of its film."""

    class Says(Toy):
        def truth(self, relative_path):
            return FilmTruth(*args, **more) if relative_path == "a.png" else None

    return replace(DATASET, open=lambda folder: Says())


MASK = Mask("Mass", (2, 3), np.array([1, 4], dtype=np.uint32))


@pytest.mark.parametrize(
    ("spec", "check", "message"),
    [
        (says({"Mass": 2}), "folder", "a label is 1, 0 or -1"),
        (says({"Node": 1}), "folder", "does not declare: {'Node'}"),
        (says(boxes=(Box("Mass", 1, 2, 0, 4),)), "folder", "width and height above 0"),
        (says(masks=(MASK,)), "folder", "must fill its 6 pixels"),
        (says(split="exam"), "folder", "split is one of"),
        (replace(DATASET, sniff=lambda folder: True), "foreign folder", "empty folder"),
        (replace(DATASET, sniff=lambda folder: False), "folder", "does not know the folder"),
        (replace(DATASET, open=lambda folder: Careless()), "folder", "must give None"),
        (replace(DATASET, open=lambda folder: 3), "folder", "AttributeError"),
        (replace(DATASET, name=""), "declaration", "must be made of"),
    ],
)
def test_an_unsound_data_set_is_caught(spec, check, message, folder):
    assert message in failed(check_dataset(spec, folder))[check]


def test_exporters_are_checked_by_their_declaration():
    sound = ExporterSpec("toy", ".toy", lambda results, out, **options: None)
    assert failed(check_exporter(sound)) == {}
    assert "dot" in failed(check_exporter(replace(sound, suffix="toy")))["declaration"]
    assert "(results, out" in failed(check_exporter(replace(sound, write=lambda path: None)))["declaration"]

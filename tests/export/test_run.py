"""An exporter gets its options, what its signature names, and nothing that it could stumble over."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from cxrx.compare.corpus import open_corpus
from cxrx.errors import UsageError
from cxrx.export.films import Films
from cxrx.export.run import export
from cxrx.export.specs import BUILTIN_EXPORTERS
from cxrx.results.reader import open_results
from cxrx.results.truth import Mask
from cxrx.specs import ExporterSpec

AFFINE = [[3, 0, 1], [0, 3, 13]]  # of the tiny model: a side of 3 pixels, 12 rows cut off


@dataclass(frozen=True)
class Options:
    scale: float = 1.0
    names: tuple[str, ...] = ()


@dataclass
class Written:
    """What `write` was called with."""

    keywords: dict = field(default_factory=dict)


@pytest.fixture
def call(tiny, tmp_path):
    """Export with a spec whose `write` is given; return the keywords that it got."""

    def run(write, given=(), *, options=Options, **more):
        with open_results(tiny.results) as results:
            spec = ExporterSpec("toy", ".toy", write, options=options)
            export(spec, results, tmp_path / "out.toy", dict(given), **more)

    return run


def test_options_are_keywords_of_the_type_of_their_field(call):
    got = Written()

    def write(results, out, **options):
        got.keywords = options

    call(write)
    assert got.keywords == {"scale": 1.0, "names": ()}
    call(write, {"scale": "2", "names": "Pleural Effusion, Mass"}, share=True)
    assert got.keywords == {"scale": 2.0, "names": ("Pleural Effusion", "Mass"), "share": True}
    with pytest.raises(UsageError, match="toy has no option 'scal'; it has scale, names") as caught:
        call(write, {"scal": "2"})
    assert caught.value.hint == "did you mean scale?"
    call(write, options=None)
    assert got.keywords == {}
    with pytest.raises(UsageError, match="toy has no options, so 'scale' cannot be set"):
        call(write, {"scale": "2"}, options=None)


def test_what_an_exporter_cannot_honour_is_refused(call, tmp_path):
    def write(results, out):
        out.touch()

    call(write, options=None)
    for more, sentence in (({"share": True}, "cannot leave file names out"), ({"images": tmp_path}, "reads no films")):
        with pytest.raises(UsageError, match=sentence):
            call(write, options=None, **more)


def test_only_what_is_named_is_handed_over(call, tmp_path):
    got = Written()

    def write(results, out, *, images, share, scale, names):
        got.keywords = {"images": images, "share": share}

    call(write)
    assert got.keywords == {"images": None, "share": False}
    call(write, share=True, images=tmp_path)
    assert got.keywords == {"images": tmp_path, "share": True}


def test_films_have_names_unless_they_are_shared(call, tiny):
    got = []

    def write(results, out, *, films, **options):
        got.append([films.name(image_id) for image_id in films.ids])

    call(write)
    call(write, share=True)
    assert got == [tiny.names, tiny.ids]


def test_pictures_maps_geometry_and_truth_of_a_film(tiny, on_source):
    with open_corpus([tiny.results]) as corpus:
        films = Films(corpus)
        image_id = tiny.ids[0]
        picture = films.picture(image_id)
        assert picture.shape == films.shape(image_id) == (120, 96)
        np.testing.assert_allclose(picture * 255, np.asarray(Image.open(tiny.films / tiny.names[0])), atol=1e-3)
        assert [one for one, _ in films.pictures(reversed(tiny.ids))] == tiny.ids  # file by file
        np.testing.assert_allclose(films.affine(image_id, "tiny"), AFFINE)
        grid = tiny.maps["gradcam"][0, 1]
        for finding in ("Effusion", "Pleural Effusion"):  # by any of its names
            drawn = films.map(image_id, finding, "gradcam")
            np.testing.assert_allclose(drawn, on_source(np.maximum(grid, 0)), atol=1e-6)  # published with a ReLU
            np.testing.assert_array_equal(films.boxes(image_id, finding), [tiny.boxes[image_id]])
        assert films.map(image_id, "Mass", "gradcam", shape=(60, 48)).shape == (60, 48)
        assert films.map(image_id, "Nodule", "gradcam") is None
        assert films.map(image_id, "Mass", "lime") is None
        assert (films.label(image_id, "Mass"), films.label(image_id, "Hernia")) == (1, None)
        assert films.boxes(image_id, "Nodule").shape == (0, 4)
        assert films.mask(image_id, "Nodule") is None
        mask = np.zeros((120, 96), bool)
        mask[30:60, 20:50] = True
        corpus.masks[image_id, "Nodule"] = Mask.encode(image_id, "Nodule", mask)
        np.testing.assert_array_equal(films.mask(image_id, "Nodule"), mask)
        np.testing.assert_array_equal(films.boxes(image_id, "Nodule"), [[20, 30, 30, 30]])


def test_a_film_that_is_gone_has_no_picture(make_tiny, tmp_path):
    own = make_tiny(n=3)
    own.films.rename(tmp_path / "moved")
    with open_corpus([own.results]) as corpus:
        assert Films(corpus).picture(own.ids[0]) is None
        assert [one for one, _ in Films(corpus, tmp_path / "moved").pictures(own.ids)] == own.ids


@pytest.mark.parametrize("name", ["csv", "chexnet-csv"])
def test_a_file_with_names_is_for_its_owner_only(tiny, tmp_path, name):
    spec = next(spec for spec in BUILTIN_EXPORTERS if spec.name == name)
    with open_results(tiny.results) as results:
        for share in (False, True):
            out = tmp_path / f"{share}.csv"
            export(spec, results, out, {}, share=share)
            assert any(film in out.read_text() for film in tiny.names) is not share
            assert (out.stat().st_mode & 0o077 == 0) is not share


def test_png_takes_its_options_as_text(tiny, tmp_path):
    spec = BUILTIN_EXPORTERS[2]
    with open_results(tiny.results) as results:
        given = {"methods": "gradcam", "findings": "Pleural Effusion", "grid": "yes", "longest": "60"}
        export(spec, results, tmp_path / "png", given, images=tiny.films)
        assert len(list((tmp_path / "png").iterdir())) == 7
        with pytest.raises(UsageError, match="longest must lie between 1 and 10000"):
            export(spec, results, tmp_path / "png", {"longest": "0"})

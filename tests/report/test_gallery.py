from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from cxrx.compare.corpus import open_corpus
from cxrx.compare.run import compare
from cxrx.export.films import Films
from cxrx.export.overlay import blend
from cxrx.report.choose import Chosen, choose_cases, lead_method
from cxrx.report.gallery import make_gallery, map_png, outline
from cxrx.results.truth import Mask


@pytest.fixture(scope="module")
def made_of(tiny):
    comparison = compare(tiny.results, n_boot=0)
    with open_corpus([tiny.results]) as corpus:
        yield comparison, corpus, make_gallery(comparison, Films(corpus), 250)


def test_every_film_is_stored_once_as_a_small_jpeg(made_of, tiny):
    _, corpus, gallery = made_of
    cards = gallery.cards()
    assert len(cards) > len(gallery.films)
    assert {card["name"] for card in cards} <= set(tiny.names)
    for image_id, film in gallery.films.items():
        picture = Image.open(io.BytesIO(base64.b64decode(film.data)))
        assert picture.format == "JPEG"
        assert picture.size == (96, 120) == (film.width, film.height)
        original = np.asarray(Image.open(tiny.films / corpus.name(image_id)), dtype=float)
        assert np.abs(np.asarray(picture, dtype=float) - original).mean() < 4


def test_a_map_is_a_palette_png_that_looks_like_the_overlay():
    """Laid over a film by its transparency it gives what the exported pictures show."""
    rng = np.random.default_rng(0)
    values = rng.random((40, 30)) - 0.2
    picture = Image.open(io.BytesIO(map_png(values)))
    assert picture.mode == "P"
    rgba = np.asarray(picture.convert("RGBA"), dtype=float)
    opacity = rgba[:, :, 3:] / 255
    film = rng.random((40, 30))
    over = (1 - opacity) * 255 * film[:, :, None] + opacity * rgba[:, :, :3]
    difference = np.abs(over - blend(film, values))
    assert difference.max() < 16  # 32 steps of the scale
    assert difference.mean() < 2
    assert (rgba[:, :, 3][values <= 0] == 0).all()
    nothing = Image.open(io.BytesIO(map_png(np.full((4, 5), np.nan)))).convert("RGBA")
    assert nothing.size == (5, 4)
    assert np.asarray(nothing)[:, :, 3].max() == 0


def test_maps_lie_on_the_films_own_frame(made_of, tiny):
    """Nothing is drawn on the rows that the crop cut off, and the peak of the good method lies in the truth."""
    _, _, gallery = made_of
    for (_, method, pair), drawn in gallery.maps.items():
        rgba = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.data))).convert("RGBA"))
        assert rgba.shape[:2] == (80, 64)
        assert rgba[:7, :, 3].max() == rgba[-7:, :, 3].max() == 0  # 12 of 120 rows, 8 of 80; a pixel of filtering
        if method == "gradcam":
            x, y, w, h = gallery.truths[pair].boxes[0]
            assert (x, y, w, h) == tiny.boxes[pair[0]]
            assert x <= drawn.peak[1] + 0.5 <= x + w
            assert y <= drawn.peak[0] + 0.5 <= y + h


def test_a_masks_outline_goes_around_it():
    mask = np.zeros((20, 30))
    mask[5:10, 8:20] = 1
    mask[0:3, 0:4] = 1  # at the edge of the picture it is closed too
    paths = [part for part in outline(mask).split("M") if part]
    assert len(paths) == 2
    spans = []
    for path in paths:
        assert path.endswith("Z")
        points = np.array([[float(v) for v in point.split()] for point in re.split("L", path.rstrip("Z"))])
        spans.append((points[:, 0].min(), points[:, 0].max(), points[:, 1].min(), points[:, 1].max()))
    assert sorted(spans) == [(0.0, 4.0, 0.0, 3.0), (8.0, 20.0, 5.0, 10.0)]
    assert outline(np.zeros((4, 4))) == ""


def test_a_mask_goes_before_boxes(tiny):
    with open_corpus([tiny.results]) as corpus:
        pair = next(iter(corpus.boxes))
        mask = np.zeros((120, 96), bool)
        mask[30:60, 20:50] = True
        corpus.masks[pair] = Mask.encode(*pair, mask)
        gallery = make_gallery(compare(tiny.results, n_boot=0), Films(corpus), 250)
    truths = [truth for own, truth in gallery.truths.items() if own == pair]
    assert all(not truth.boxes and truth.outline.startswith("M") for truth in truths)


def test_cards_say_what_is_known(made_of):
    comparison, _, gallery = made_of
    table = comparison.per_pair
    seen = 0
    for card in gallery.cards():
        (row,) = card["rows"]
        assert re.fullmatch(r"probability [01]\.\d\d, (true|false) (positive|negative)", row["said"])
        assert [cell["method"] for cell in row["cells"]] == ["gradcam", "smoothgrad"]
        for cell in row["cells"]:
            same = table[(table["method"] == cell["method"]) & (table["finding"] == card["finding"])]
            said = {
                f"IoU {iou:.2f} · {'hit' if hit else 'miss'}" for iou, hit in zip(same["iou"], same["hit"], strict=True)
            }
            seen += cell["caption"] in said
            assert cell["caption"] in {*said, ""}
    assert seen > 20
    assert gallery.choices("finding") == ["Effusion", "Mass"]
    assert gallery.choices("method") == ["gradcam", "smoothgrad"]
    assert gallery.choices("model") == ["tiny@01234567"]


@pytest.mark.slow
def test_cases_are_chosen_by_rule(make_tiny):
    own = make_tiny(n=30)
    comparison = compare(own.results, n_boot=0)
    with open_corpus([own.results]) as corpus:
        model = corpus.models["tiny@01234567"]
        groups = {group.heading: group for group in choose_cases(comparison, corpus, 40)}
        assert list(groups) == ["Where it works", "Where it fails", "Missed findings", "Drawn by lot"]
        assert all(0 < len(group.cases) <= 8 for group in groups.values())
        pairs = {name: [case.pair for case in group.cases] for name, group in groups.items()}
        table = comparison.per_pair
        iou = {(row.image_id, row.finding): row.iou for row in table[table["method"] == "gradcam"].itertuples()}
        positive = [pair for pair in iou if model.outcome(pair, 1) == "TP"]
        best, worst = pairs["Where it works"], pairs["Where it fails"]
        assert set(best) | set(worst) <= set(positive)
        for finding in ("Mass", "Effusion"):
            mine = sorted((pair for pair in positive if pair[1] == finding), key=iou.get)
            top = [pair for pair in best if pair[1] == finding]
            assert top == mine[::-1][: len(top)]
            low = [pair for pair in worst if pair[1] == finding]
            assert low == [pair for pair in mine if pair not in top][: len(low)]
        missed = [pair for pair in model.pairs() if model.outcome(pair, 1) == "FN"]
        for finding in ("Mass", "Effusion"):
            sure = sorted((pair for pair in missed if pair[1] == finding), key=model.probability_of)
            shown = [pair for pair in pairs["Missed findings"] if pair[1] == finding]
            assert shown == sure[: len(shown)]
        assert "IoU" in groups["Where it works"].cases[0].why
        assert "of gradcam" in groups["Where it works"].cases[0].why
        again = {group.heading: list(group.cases) for group in choose_cases(comparison, corpus, 40)}
        assert again == {name: list(group.cases) for name, group in groups.items()}
        comparison.settings["seed"] = 1
        other = {group.heading: list(group.cases) for group in choose_cases(comparison, corpus, 40)}
        assert other.pop("Drawn by lot") != again.pop("Drawn by lot")
        assert other == again
        comparison.per_pair["iou"] = 0.0
        assert "Where it works" not in {group.heading for group in choose_cases(comparison, corpus, 40)}


@pytest.mark.slow
def test_false_alarms_are_cases_though_they_have_no_truth(make_tiny):
    own = make_tiny(n=12)
    comparison = compare(own.results, n_boot=0)
    with open_corpus([own.results]) as corpus:
        model = corpus.models["tiny@01234567"]
        for pair in model.pairs():
            corpus.labels[pair[0]] = {"Mass": 0, "Effusion": 0}
        groups = {group.heading: group.cases for group in choose_cases(comparison, corpus)}
        shown = [case.pair for case in groups["False alarms"]]
        alarms = {pair for pair in model.pairs() if model.probability_of(pair) >= 0.5}
        assert set(shown) == alarms
        mass = [model.probability_of(pair) for pair in shown if pair[1] == "Mass"]
        assert mass == sorted(mass, reverse=True)
        assert groups["False alarms"][0] == Chosen(shown[0], f"probability {model.probability_of(shown[0]):.2f}")


def test_the_leading_method_is_no_control(made):
    comparison = made()
    table = comparison.summary
    at = (table["model"] == "a@1") & (table["metric"] == "hit") & (table["finding"] == "all")
    comparison.summary = table.assign(value=table["value"].mask(at & (table["method"] == "edge"), 2.0))
    best = table[at & ~table["method"].isin(comparison.controls)].set_index("method")["value"].idxmax()
    assert lead_method(comparison, "a@1", ["edge", "gradcam", "smoothgrad"]) == best
    assert lead_method(comparison, "a@1", ["edge"]) == "edge"


@pytest.mark.slow
def test_a_method_without_a_number_does_not_lead(made):
    comparison = made()
    hits = (comparison.summary["metric"] == "hit") & (comparison.summary["finding"] == "all")
    comparison.summary.loc[hits & (comparison.summary["method"] == "gradcam"), "value"] = np.nan
    comparison.summary.loc[hits & (comparison.summary["method"] == "smoothgrad"), "value"] = 0.1
    assert lead_method(comparison, "a@1", ["gradcam", "smoothgrad"]) == "smoothgrad"


def test_many_methods_leave_fewer_cards(tiny, monkeypatch):
    from cxrx.report import gallery

    monkeypatch.setattr(gallery, "MOST_MAPS", 12)
    comparison = compare(tiny.results, n_boot=0)
    with open_corpus([tiny.results]) as corpus:
        made = make_gallery(comparison, Films(corpus), 250)
    assert made.most == 6
    assert len(made.maps) <= 12
    assert len(made.cards()) <= 6

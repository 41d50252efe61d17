from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from cxrx.compare.verdict import Statement
from cxrx.report.choose import MAX_CASES
from cxrx.report.gallery import MAP, MOST_MAPS, PICTURE, Gallery
from cxrx.report.html import page as render

SECTIONS = (
    "verdict", "warnings", "classifier", "localisation", "faithfulness", "sanity", "agreement", "strata", "tests",
    "regions", "costs", "cases", "skipped", "methods",
)  # fmt: skip


class Page(HTMLParser):
    """Checks that tags close in order and gathers what could leave the page."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.tags = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.links += [attrs[name] for name in ("src", "href", "srcset", "action", "data") if name in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(tiny, tmp_path_factory, report):
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert report(tiny.results, out, n_boot=50) == out
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def filled(made):
    return made(findings=("Mass", "Effusion"), methods=("gradcam",))


@pytest.fixture(scope="module")
def full(filled, made_gallery):
    return render(filled, made_gallery(filled, 6))


@pytest.mark.parametrize("kind", ["page", "full"])
def test_the_page_is_whole_and_needs_nothing_else(kind, request):
    text = request.getfixturevalue(kind)
    parsed = Page(text)
    assert parsed.open == []
    assert parsed.links
    assert all(link.startswith(("data:image/", "data:,", "#")) for link in parsed.links)
    assert "://" not in text
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_only_its_own_script_may_run(page):
    policy = next(attrs["content"] for attrs in Page(page).named("meta") if "http-equiv" in attrs)
    script = re.search(r"<script>(.*?)</script>", page, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy
    assert page.count("<script") == 1
    assert not re.search(r"\son\w+=", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))


def test_sections_come_in_their_order_and_empty_ones_are_left_out(full, page, filled, made_gallery, emptied):
    places = [full.index(f'<h2 id="{name}"') for name in SECTIONS]
    assert places == sorted(places)
    listed = [attrs["href"][1:] for attrs in Page(full).named("a") if attrs.get("href", "").startswith("#")]
    assert [name for name in listed if name in SECTIONS[2:]][: len(SECTIONS) - 2] == list(SECTIONS[2:])
    assert 'id="regions"' not in page
    assert 'id="regions"' not in "".join(re.findall(r'href="#(\w+)"', page))
    empty = Page(render(emptied(filled), made_gallery(filled, 0)))
    assert empty.open == []
    left = [attrs["id"] for attrs in empty.named("h2")]
    assert left == ["verdict", "warnings", "skipped", "methods"]


def test_it_says_what_counts_first(page, tiny):
    text = " ".join(Page(page).text)
    text = text[text.index("Verdict") :]
    order = [
        "Verdict",
        "in 1.00",
        "Not a medical device",
        "How good is",
        "Does the map point",
        "Do the methods",
        "Cases",
    ]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert "Demo model" not in text
    assert any(name in text for name in tiny.names)  # a local report names the films
    for word in ("gradcam", "smoothgrad", "prior", "centre", "random", "Skill, Hit rate", "n = 21"):
        assert word in text


@pytest.mark.slow
def test_the_verdict_stands_under_its_models(full, filled, made, made_gallery):
    text = " ".join(" ".join(Page(full).text).split())
    first = (
        "gradcam puts its maximum into the finding in 0.60 of cases (mean over findings; 40 truth pairs of 30 patients)"
    )
    assert first in text
    assert "Together" not in text
    filled = made(findings=("Mass",), methods=("gradcam",))
    of_two = Statement(
        "gradcam", kind="models", model="a@1", against=("b@2",), metric="hit", value=0.1, n=4, decision="undecided"
    )
    of_b = Statement("gradcam", kind="classifier", model="b@2", metric="auroc", value=0.9, n=40, reason="1 of 1")
    filled = replace(filled, statements=[of_b, *filled.statements, of_two])
    text = " ".join(" ".join(Page(render(filled, made_gallery(filled, 0))).text).split())
    text = text[text.index("Verdict") :]
    auroc = "AUROC of 0.90 (1 of 1; 40 labels; no interval)."
    words = ("a@1", first, "edge fails: its map stays.", "b@2", auroc, "Together", "gradcam on a@1")
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    assert filled.verdict[0].startswith("b@2: The classifier")
    assert filled.verdict[-1].startswith("gradcam on a@1 against b@2: +0.10 hit rate (n = 4); not decidable")


def test_numbers_of_every_table_are_there(full, filled):
    """One distinct number of each table is found where it belongs."""
    text = " ".join(" ".join(Page(full).text).split())
    row = filled.summary.iloc[0]
    assert f"gradcam {row['value']:.2f} {row['low']:.2f}–{row['high']:.2f}" in text
    decided = int(filled.paired_tests["decided"].sum())
    assert f"{decided} of {len(filled.paired_tests)} paired differences survive Holm" in text
    assert "Randomised weights: edge fails . It is so." in text
    assert "Randomised weights: centre not decided . It changes nothing." in text
    # of 30 pairs i, those with i % 8 > 5: 6, 7, 14, 15, 22, 23
    assert "The baseline of deletion keeps a median of 0.30 of the probability on the film; for 6 of 30 pairs" in text
    assert "0.0123 99 maps" in text
    for caption in (
        "By size of the finding",
        "By outcome",
        "Thresholds by rule",
        "Map of one finding, truth of another",
    ):
        assert caption in text


def test_share_leaves_names_out(tiny, page, tmp_path, report):
    assert any(name in page for name in tiny.names)
    shared = report(tiny.results, tmp_path / "r.html", share=True, n_boot=0).read_text(encoding="utf-8")
    assert not any(name in shared for name in tiny.names)
    assert any(image_id in shared for image_id in tiny.ids)


@pytest.mark.slow
def test_demo_banner_and_missing_films(make_tiny, tmp_path, report):
    own = make_tiny(n=5, demo=True)
    own.films.rename(tmp_path / "moved")
    page = report(own.results, tmp_path / "r.html", n_boot=0).read_text(encoding="utf-8")
    assert "Demo model" in page
    assert "films of the case grid could not be found" in page
    assert "<image" not in page
    page = report(own.results, tmp_path / "r.html", images=tmp_path / "moved", n_boot=0).read_text(encoding="utf-8")
    assert "could not be found" not in page
    assert page.count("data:image/jpeg") == len(set(re.findall(r'<use href="#f(\d+)"', page))) > 0


@pytest.mark.slow
def test_what_is_written_is_escaped(make_tiny, tmp_path, made, made_gallery, report):
    own = make_tiny(n=3)
    private = own.results.with_name("results.private.csv")
    text = private.read_text(encoding="utf-8")
    for i in range(3):
        text = text.replace(f"film{i:02d}.png", f"<b onload={i}>.png", 1)
    private.write_text(text, encoding="utf-8")
    page = report(own.results, tmp_path / "r.html", n_boot=0).read_text(encoding="utf-8")
    assert "<b onload" not in page
    assert "&lt;b onload=" in page
    evil = ('"><script>alert(1)</script>', "a & 'b' \"c\" $x_1$", "</svg><img src=x onerror=alert(1)>")
    comparison = made(findings=evil, methods=("<i>m</i>",), models=("<u>@1",))
    text = render(comparison, made_gallery(comparison, 3))
    parsed = Page(text)
    assert parsed.open == []
    assert len(parsed.named("script")) == 1
    assert not parsed.named("img") + parsed.named("i m") + parsed.named("u")
    assert "$x_1$" in "".join(parsed.text)  # no formula


@pytest.mark.parametrize("options", [{"methods": ()}, {"boxed": False}, {"boxed": False, "labelled": False}])
def test_poor_files_still_give_a_page(make_tiny, tmp_path, options, report):
    own = make_tiny(n=4, **options)
    page = report(own.results, tmp_path / "r.html", n_boot=0).read_text(encoding="utf-8")
    assert Page(page).open == []
    assert "What was left out, and why" in page


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(tiny, page, tmp_path, full, filled, made_gallery, report):
    assert report(tiny.results, tmp_path / "again.html", n_boot=50).read_text(encoding="utf-8") == page
    assert render(filled, made_gallery(filled, 6)) == full


@pytest.mark.slow
def test_a_thousand_films_stay_under_fifteen_megabytes(made, made_gallery):
    """As many cards as there can be, each with its film, and full tables of 14 findings and 5 methods.

    The maps are noise at the size they are stored at, which no picture compresses worse than; what cards and tables
    weigh is measured on a part of them.
    """
    findings, methods = tuple(f"Finding {i}" for i in range(14)), ("gradcam", "smoothgrad", "extremal", "rise", "lime")
    few, many = made(findings[:1], methods[:1], models=("a@1",)), made(findings, methods, models=("a@1",))
    gallery = made_gallery(many, 10)
    film = np.mean([len(one.data) for one in gallery.films.values()])
    drawn = np.mean([len(one.data) for one in gallery.maps.values()])
    card = len(render(few, made_gallery(few, 2))) - len(render(few, made_gallery(few, 1))) - film - 3 * drawn
    tables = len(render(many, Gallery(most=250)))
    assert max(PICTURE, MAP) <= 512
    assert MAX_CASES == 250
    # a card of `few` holds three maps; one with 20 would weigh as much as seven of them
    assert MAX_CASES * film + MOST_MAPS * drawn + MOST_MAPS * card / 3 + tables < 15e6

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cxrx.compare.run import compare
from cxrx.report.choose import choose_cases
from cxrx.report.html import number, span, write_report


class Page(HTMLParser):
    """Checks that tags close in order and gathers what could leave the page."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.text, self.images = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ("src", "href", "srcset", "action", "data") if name in attrs]
        if tag == "img":
            self.images.append(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report(compare(tiny.results, n_boot=50), out) == out
    return out.read_text()


def test_the_page_is_whole_and_needs_nothing_else(page):
    parsed = Page(page)
    assert parsed.open == []
    assert parsed.links
    assert all(link.startswith("data:image/jpeg;base64,") for link in parsed.links)
    assert "://" not in page
    assert "<script" not in page
    assert len(page) < 3_000_000


def test_every_picture_is_a_small_jpeg_of_the_right_shape(page):
    images = Page(page).images
    assert len(images) == 21 * 3
    for attrs in images[:6]:
        picture = Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2])))
        assert picture.format == "JPEG"
        assert picture.size == (96, 120) == (int(attrs["width"]), int(attrs["height"]))
        assert attrs["alt"]


def test_it_says_what_counts_first(page, tiny):
    text = " ".join(Page(page).text)
    order = ["in 1.00", "Not a medical device", "Does the map point", "How good is", "Do the methods", "Cases"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert "Demo model" not in text
    assert all(name in text for name in tiny.names)  # a local report names the films
    for word in ("gradcam", "smoothgrad", "prior", "centre", "random"):
        assert word in text


def test_truth_and_peak_are_where_they_should_be(page, tiny):
    """The cross of the good method lies inside the drawn truth box of its case."""
    cells = re.findall(r"<figure><div class=\"picture\">.*?</figure>", page, flags=re.DOTALL)
    crosses = [cell for cell in cells if 'class="cross"' in cell and "<b>gradcam</b>" in cell]
    assert len(crosses) == 21
    for cell in crosses:
        x, y, w, h = map(
            float, re.search(r'class="truth" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', cell).groups()
        )
        left, row, span_ = map(float, re.search(r'class="cross" d="M(\S+) (\d+)h(\S+?)m', cell).groups())
        assert x <= left + span_ / 2 <= x + w
        assert y <= row <= y + h


def test_share_leaves_names_out(tiny, tmp_path):
    page = write_report(compare(tiny.results, n_boot=0), tmp_path / "r.html", share=True).read_text()
    assert not any(name in page for name in tiny.names)
    assert tiny.ids[0] in page


def test_demo_banner_and_missing_films(make_tiny, tmp_path):
    own = make_tiny(n=5, demo=True)
    own.films.rename(tmp_path / "moved")
    page = write_report(compare(own.results, n_boot=0), tmp_path / "r.html").read_text()
    assert "Demo model" in page
    assert "films of the case grid could not be found" in page
    assert "<img" not in page
    page = write_report(compare(own.results, n_boot=0), tmp_path / "r.html", images=tmp_path / "moved").read_text()
    assert page.count("<img") == 8 * 3


def test_what_is_written_is_escaped(make_tiny, tmp_path):
    own = make_tiny(n=3)
    private = own.results.with_name("results.private.csv")
    private.write_text(private.read_text().replace("film00.png", "<b onload=1>.png", 1))
    page = write_report(compare(own.results, n_boot=0), tmp_path / "r.html").read_text()
    assert "<b onload" not in page
    assert "&lt;b onload=1&gt;.png" in page


@pytest.mark.parametrize("options", [{"methods": ()}, {"boxed": False}, {"boxed": False, "labelled": False}])
def test_poor_files_still_give_a_page(make_tiny, tmp_path, options):
    own = make_tiny(n=4, **options)
    page = write_report(compare(own.results, n_boot=0), tmp_path / "r.html").read_text()
    assert Page(page).open == []
    assert "What was left out, and why" in page


def test_cases_are_chosen_by_rule(make_tiny):
    from cxrx.compare.corpus import open_corpus

    own = make_tiny(n=30)
    comparison = compare(own.results, n_boot=0)
    with open_corpus([own.results]) as corpus:
        groups = choose_cases(comparison, corpus)
    assert [heading for heading, _, _ in groups] == ["Where it works", "Where it fails", "Drawn by lot"]
    keys = [key for _, _, members in groups for key in members]
    assert len(keys) == len(set(keys)) == 24
    assert "gradcam" in groups[0][1]
    table = comparison.per_pair
    iou = {(row.image_id, row.finding): row.iou for row in table[table["method"] == "gradcam"].itertuples()}
    best, worst = ([iou[pair] for _, pair in members] for _, _, members in groups[:2])
    assert min(best) > max(worst)
    assert {pair[1] for _, pair in groups[0][2]} == {"Mass", "Effusion"}


def test_numbers_are_written_plainly():
    assert [number(v) for v in (0.126, np.nan, np.int64(3), "x", None, -0.001)] == ["0.13", "–", "3", "x", "–", "0.00"]
    assert span(0.1, 0.234) == "0.10–0.23"
    assert span(np.nan, 1) == ""

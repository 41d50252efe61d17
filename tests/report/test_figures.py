from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from cxrx.report.figures import Dot, Line, boxes, curves, forest, shortened, strokes
from cxrx.report.grids import clustered, keyed, matrix, value_cell
from cxrx.report.words import count, heading, number, small, span

NAMES = ("gradcam", "<b>&\"'$x$", "心臓")


def drawn():
    look = strokes(NAMES)
    x = np.linspace(0, 1, 5)
    lines = [Line(name, x, x**2, x**2 - 0.1, x**2 + 0.1, level=0.3) for name in NAMES]
    return {
        "forest": forest([Dot(name, 0.5, 0.4, 0.6, n=9) for name in NAMES], alt="A \"forest\" <of> ids", prior=0.3),
        "boxes": boxes({name: [0.1, 0.5, np.nan] for name in NAMES} | {"no": [np.nan]}, alt="Boxes", controls={"no"}),
        "curves": curves(lines, look, alt="Curves", labels=("x", "y"), ylim=(0, 1)),
        "stages": curves(lines[:1], look, alt="Stages", labels=("", "y"), stages=[*"abcd", "features.denseblock4"]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["forest", "boxes", "curves", "stages"])
def test_a_figure_is_plain_svg_with_text_and_the_pages_colours(kind):
    svg = str(drawn()[kind])
    tree = ET.fromstring(svg)  # well-formed
    assert tree.tag == "svg"
    assert tree.attrib["role"] == "img"
    assert tree.attrib["aria-label"]
    styles = " ".join(element.attrib.get("style", "") for element in tree.iter())
    assert "#" not in re.sub(r"url\(#[^)]*\)", "", styles)  # no colour of its own
    assert "font-family" not in svg
    assert set(re.findall(r"var\(--(\w+)\)", styles)) <= {
        "ink", "soft", "line", "accent", "control", "paper", *(f"c{i}" for i in range(8)),
    }  # fmt: skip
    assert "://" not in svg
    texts = [element.text for element in tree.iter("text")]
    if kind in ("forest", "boxes"):
        assert set(NAMES) <= set(texts)
    assert str(drawn()[kind]) == svg


def test_two_figures_share_no_id():
    figures = [str(figure) for figure in drawn().values()]
    ids = [name for svg in figures for name in re.findall(r'\sid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids)) > 4
    for svg in figures:
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= set(re.findall(r'\sid="([^"]+)"', svg))


def test_a_forest_plot_draws_values_where_they_are():
    """Dots, intervals and the prior lie on the axis they are read off."""
    svg = str(forest([Dot("a", 0.25, 0.0, 0.5), Dot("b", 1.0)], alt="x", prior=0.75))
    ticks = {text: float(x) for x, text in re.findall(r'<text [^>]*x="([\d.]+)"[^>]*>(\d\.\d)</text>', svg)}
    left, wide = ticks["0.0"], ticks["1.0"] - ticks["0.0"]

    def at(value):
        return pytest.approx(left + value * wide, abs=0.02)

    dots = [float(x) for x in re.findall(r'<use href="#m[^"]*" x="([\d.]+)" y="[\d.]+" style="fill', svg)]
    assert dots[-2:] == [at(0.25), at(1.0)]
    interval = re.search(
        r'd="M ([\d.]+) ([\d.]+) L ([\d.]+) ([\d.]+) " style="fill: none; stroke: var\(--accent\)', svg
    )
    assert [float(interval[1]), float(interval[3])] == [at(0.0), at(0.5)]
    prior = re.search(r'd="M ([\d.]+) [\d.]+ L ([\d.]+) [\d.]+ "[^>]*stroke: var\(--ink\)', svg)
    assert [float(prior[1]), float(prior[2])] == [at(0.75)] * 2


def test_controls_are_grey_and_lines_differ():
    names = [f"m{i}" for i in range(20)]
    look = strokes([*names, "edge", "random", "all"], {"edge", "random"})
    assert look["edge"].colour == look["random"].colour == "control"
    assert look["all"].colour == "ink"
    assert len({(stroke.colour, stroke.dashes) for stroke in look.values()}) == len(look)


def test_labels_are_cut_in_their_middle():
    assert shortened("gradcam") == "gradcam"
    assert shortened("a very long name of a layer", 9) == "a ve…ayer"
    assert shortened("two\nlines") == "two lines"


def test_like_stands_beside_like():
    groups = {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0}
    rows = [
        {"a": one, "b": two, "value": 0.9 if groups[one] == groups[two] else 0.1, "random_pair": 0.05}
        for one in groups
        for two in groups
        if one < two
    ]
    names = clustered(list(groups), keyed(rows, "a", "b"))
    assert sorted(names) == list(groups)
    assert [groups[name] for name in names] in ([0, 0, 0, 1, 1], [1, 1, 0, 0, 0])
    grid = matrix(rows, "a", "b", "n = 5")
    cells = {
        (row.heads[0], column): cell for row in grid.rows for column, cell in zip(grid.columns, row.cells, strict=True)
    }
    assert cells["a", "c"].text == cells["c", "a"].text == "0.90"
    assert cells["a", "c"].under == "0.05"
    assert cells["a", "b"].shade == pytest.approx(0.1)
    assert cells["a", "a"].text == "·"
    assert matrix([], "a", "b", "") is None


def test_methods_that_say_the_same_are_ordered_though_rounding_leaves_them_above_one():
    names = [f"method{i}" for i in range(25)]
    rows = [
        {"a": one, "b": two, "value": 1 + 2e-16 * (1 + i % 3)} for i, one in enumerate(names) for two in names[i + 1 :]
    ]
    assert any(row["value"] > 1 for row in rows)
    assert sorted(clustered(names, keyed(rows, "a", "b"))) == sorted(names)


def test_numbers_are_written_plainly():
    assert [number(v) for v in (0.126, np.nan, np.int64(3), "x", None, -0.001)] == ["0.13", "–", "3", "x", "–", "0.00"]
    assert span(0.1, 0.234) == "0.10–0.23"
    assert span(np.nan, 1) == span(None, 1) == ""
    assert [small(v) for v in (0.0004, 0.0312, np.nan)] == ["< 0.001", "0.031", "–"]
    assert [count(v) for v in (7.0, np.nan, None)] == ["7", "–", "–"]
    assert [heading(v) for v in ("iou", "iou_above_0.5", "odd_one")] == ["IoU", "IoU above 0.5", "Odd one"]
    cell = value_cell({"auroc": 0.5, "auroc_low": 0.4, "auroc_high": np.nan}, name="auroc")
    assert (cell.text, cell.under) == ("0.50", "")
    assert value_cell(None).text == "–"

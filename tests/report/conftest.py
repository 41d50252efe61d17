"""Made-up comparisons with every table filled: what the page must be able to draw, before anything is measured."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrx.compare.comparison import Comparison
from cxrx.compare.corpus import open_corpus
from cxrx.compare.run import compare
from cxrx.compare.verdict import Statement
from cxrx.export.overlay import jpeg
from cxrx.report.gallery import MAP, PICTURE, Drawn, Film, Gallery, Truth, map_png
from cxrx.report.html import write_report

METRICS = ("hit", "hit_15px", "iou", "mass", "mass_ratio", "rank", "auroc", "iou_top_1", "iou_top_10", "iou_top_40")
STAGES = ("head", "block4", "block3", "block2", "block1", "stem")
CONTROLS = ("prior", "centre", "random", "edge")


@pytest.fixture(scope="session")
def report():
    """Compare a results file and write its report, as the command does: on one open corpus."""

    def write(results, out, *, images=None, share=False, **options):
        with open_corpus([results]) as corpus:
            return write_report(compare(corpus, **options), corpus, out, images=images, share=share)

    return write


@pytest.fixture(scope="session")
def made():
    """Make a comparison up; see :func:`make`."""
    return make


@pytest.fixture(scope="session")
def made_gallery():
    """Make a gallery up; see :func:`draw`."""
    return draw


@pytest.fixture(scope="session")
def emptied():
    """Return the same comparison with no row in any table."""

    def empty(comparison):
        return replace(comparison, **{name: table.iloc[:0] for name, table in comparison.tables().items()})

    return empty


def make(
    findings=("Mass", "Effusion", "Nodule"), methods=("gradcam", "smoothgrad"), models=("a@1", "b@2"), films=40, seed=0
):
    """Return a comparison whose tables hold random numbers of the right shape, by the names of the real one."""
    rng = np.random.default_rng(seed)
    every = [*methods, *CONTROLS]
    tables = {
        **_localisation(rng, findings, every, models, films),
        **_classifier(rng, findings, models, films),
        **_behaviour(rng, findings, every, models),
        **_relations(rng, findings, every, models),
    }
    return Comparison(
        paths=(Path("results.h5"),), films=films, demo=False, **tables,
        skipped=[("infidelity", "it is not in the set auto")], warnings=["7 maps are constant"],
        statements=[
            Statement("gradcam", kind="localisation", model=models[0], metric="hit", value=0.6, n=40, patients=30),
            Statement("edge", kind="sanity", model=models[0], decision="fails", reason="its map stays"),
        ],
        settings={"n_boot": 1000, "seed": 0, "truth": "", "metrics": ["localisation"]},
        conventions={"localisation: hit": "the maximum lies in the truth", "interval": "95 %, over patients"},
        models={slug: {"findings": findings, "fingerprint": "f" * 8, "demo": False, "methods": {}} for slug in models},
        controls=set(CONTROLS),
    )  # fmt: skip


def draw(comparison, cases=12, seed=0):
    """Return a gallery of noise, which no picture compresses worse than."""
    rng = np.random.default_rng(seed)
    findings = next(iter(comparison.models.values()))["findings"]
    methods = [name for name in dict.fromkeys(comparison.summary["method"]) if name not in ("prior", "centre")]
    gallery, cards = Gallery(most=250), []
    shape, cells = (PICTURE, round(PICTURE * 0.84)), (MAP, round(MAP * 0.84))
    for i in range(cases):
        pair = (f"{i:016x}", findings[i % len(findings)])
        # a film is smooth with some grain
        film = np.clip(110 + 60 * np.sin(np.arange(shape[1]) / 40) + rng.normal(0, 6, shape), 0, 255).astype(np.uint8)
        gallery.films[pair[0]] = Film(f"f{i}", shape[1], shape[0], _text(jpeg(film, 78)))
        gallery.truths[pair] = Truth(f"t{i}", [[60.0, 80.0, 70.0, 50.0]], "M10 10L90 10L90 90Z" if i % 3 == 0 else "")
        rows = []
        for slug in comparison.models:
            drawn = {}
            for method in methods:
                drawn[method] = Drawn(f"m{len(gallery.maps)}", _text(map_png(rng.random(cells) ** 2)), (100, 90))
                gallery.maps[slug, method, pair] = drawn[method]
            found = [{"method": name, "map": one, "caption": "IoU 0.52 · hit"} for name, one in drawn.items()]
            rows.append({"model": slug, "said": "probability 0.98, true positive", "cells": found})
        cards.append({
            "finding": pair[1], "name": f"folder/film{i:04d}.png", "facts": ["label: present"],
            "film": gallery.films[pair[0]], "truth": gallery.truths[pair], "rows": rows,
        })  # fmt: skip
    groups = [("Where it works", "The best.", cards[::2]), ("Where it fails", "The worst.", cards[1::2])]
    gallery.groups = [group for group in groups if group[2]]
    return gallery


def _text(data):
    return base64.b64encode(data).decode()


def _bounds(value, width=0.08):
    return {"value": value, "low": value - width, "high": value + width}


def _localisation(rng, findings, methods, models, films):
    summary, pairs, strata, confusion = [], [], [], []
    for model in models:
        for method in methods:
            for finding in ("all", *findings):
                keys = {"model": model, "method": method, "finding": finding}
                summary += [
                    {**keys, "metric": metric, **_bounds(rng.random()), "n": films, "nan": 0, "skill": rng.random()}
                    for metric in METRICS
                ]
            for finding in findings:
                scores = {metric: rng.random(films) for metric in ("iou", "mass")}
                base = {"model": model, "method": method, "finding": finding, "outcome": "TP", "probability": 0.9}
                ids = {"image_id": [f"{i:016x}" for i in range(films)], "patient": [f"p{i // 2}" for i in range(films)]}
                pairs.append(
                    pd.DataFrame({**ids, **scores, "hit": rng.integers(0, 2, films), "area": 0.1}).assign(**base)
                )
                confusion += [
                    {
                        "model": model,
                        "method": method,
                        "finding_map": finding,
                        "finding_truth": b,
                        "value": rng.random(),
                        "n": 9,
                    }
                    for b in findings
                ]
            for by, levels in (
                ("size", "small medium large"),
                ("confidence", "low medium high"),
                ("outcome", "TP FN FP"),
            ):
                strata += [
                    {
                        "model": model,
                        "method": method,
                        "by": by,
                        "stratum": name,
                        "metric": metric,
                        **_bounds(0.3),
                        "n": 12,
                    }
                    for metric in ("iou", "dispersion")
                    for name in levels.split()
                ]
    summary = pd.DataFrame(summary)
    return {
        "summary": summary, "per_pair": pd.concat(pairs, ignore_index=True), "strata": pd.DataFrame(strata),
        "confusion": pd.DataFrame(confusion),
    }  # fmt: skip


def _classifier(rng, findings, models, films):
    rows, points, cuts = [], [], []
    grid = np.linspace(0, 1, 30)
    for model in models:
        for k, finding in enumerate((*findings, "all")):
            row = {"model": model, "finding": finding, "n": films, "positives": 9, "threshold": 0.5, "note": ""}
            for name in ("auroc", "auprc", "f1", "f1_macro", "f1_weighted", "accuracy", "sensitivity", "specificity"):
                row |= {name: rng.random(), f"{name}_low": 0.1, f"{name}_high": 0.9}
            rows.append(row | {"brier": 0.1, "ece": 0.05, "tn": 20, "fp": 3, "fn": 2, "tp": 7})
            for curve in ("roc", "pr", "reliability"):
                y = 1 - grid ** (2 + k) if curve == "pr" else grid ** (1 / (2 + k))
                points.append(
                    pd.DataFrame({"model": model, "finding": finding, "curve": curve, "x": grid, "y": y, "n": films})
                )
            cuts += [
                {"model": model, "finding": finding, "rule": rule, "threshold": 0.4, "chosen": "cross-fitted",
                 "sensitivity": 0.8,
                 "specificity": 0.7, "ppv": 0.5, "npv": np.nan, "f1": 0.6}
                for rule in ("0.5", "youden", "f1-max", "sensitivity-0.95")
            ]  # fmt: skip
    return {
        "classification": pd.DataFrame(rows), "classifier_curves": pd.concat(points, ignore_index=True),
        "thresholds": pd.DataFrame(cuts),
    }  # fmt: skip


def _behaviour(rng, findings, methods, models):
    means, pairs, curves, sanity, verdicts = [], [], [], [], []
    x = np.linspace(0, 1, 51)
    for model in models:
        for m, method in enumerate(methods):
            for finding in ("all", *findings):
                keys = {"model": model, "method": method, "finding": finding}
                means += [
                    {**keys, "metric": name, **_bounds(rng.random()), "n": 30, "nan": 1}
                    for name in ("deletion", "insertion", "road", "degradation", "flagged")
                ]
            pairs += [
                {"image_id": f"{i:016x}", "patient": "p", "model": model, "method": method, "finding": "Mass",
                 "baseline_share": 0.1 * (i % 8), "flagged": float(i % 8 > 5)}
                for i in range(30)
            ]  # fmt: skip
            for name, sign in (("deletion", -1), ("insertion", 1), ("road_morf", -1), ("road_lerf", -1)):
                y = np.exp(-x * (2 + m)) if sign < 0 else 1 - np.exp(-x * (2 + m))
                curves.append(pd.DataFrame({
                    "model": model, "method": method, "curve": name, "x": x, "value": y, "low": y - 0.05,
                    "high": y + 0.05,
                    "n": 30,
                }))  # fmt: skip
            for metric, line in (("spearman", 0.3), ("iou_top_10", 0.17)):
                falls = np.linspace(1, 0.95 if method == "edge" else 0.05, len(STAGES))
                sanity += [
                    {"model": model, "method": method, "test": "randomisation", "stage": stage, "metric": metric,
                     **_bounds(value, 0.05), "n": 24, "random_pair": line}
                    for stage, value in zip(STAGES, falls, strict=True)
                ]  # fmt: skip
            passed, outcome = {"edge": (False, "fails"), "centre": (None, "")}.get(method, (True, "passes"))
            said = "it changes nothing" if method == "centre" else "it is so"
            verdicts.append({
                "model": model, "method": method, "test": "randomisation", "passed": passed, "outcome": outcome,
                "reason": said, "sentence": f"{method} {outcome}: {said}",
            })  # fmt: skip
    return {
        "faithfulness": pd.DataFrame(means), "faithfulness_pairs": pd.DataFrame(pairs),
        "curves": pd.concat(curves, ignore_index=True), "sanity": pd.DataFrame(sanity),
        "sanity_verdicts": pd.DataFrame(verdicts),
    }  # fmt: skip


def _relations(rng, findings, methods, models):
    agreement, between, tests = [], [], []
    for i, a in enumerate(methods):
        for b in methods[i + 1 :]:
            for model in models:
                agreement += [
                    {"model": model, "method_a": a, "method_b": b, "finding": "all", "metric": metric,
                     **_bounds(rng.random()), "n": 40, "random_pair": 0.2}
                    for metric in ("spearman", "iou_top_10")
                ]  # fmt: skip
                tests += [
                    {"kind": "methods", "metric": "hit", "finding": finding, "model_a": model, "method_a": a,
                     "model_b": model, "method_b": b, "n": 40, "patients": 30, "value_a": 0.6, "value_b": 0.4,
                     "difference": 0.2,
                     "low": 0.1, "high": 0.3, "test": "t over patients", "p": 0.001, "p_holm": 0.004, "effect": 0.4,
                     "decided": bool(rng.random() < 0.3)}
                    for finding in ("all", *findings)
                ]  # fmt: skip
        between += [
            {"method": a, "model_a": one, "model_b": two, "finding": "all", "metric": "spearman", **_bounds(0.5),
             "n": 40, "random_pair": 0.2}
            for k, one in enumerate(models)
            for two in models[k + 1 :]
        ]  # fmt: skip
    costs = [
        {"model": model, "method": name, "seconds_a_map": 0.0123, "maps": 99, "device": "cpu"}
        for model in models
        for name in methods
    ]
    regions = [
        {"model": model, "method": name, "region": region, "finding": "Mass", "metric": "mass", **_bounds(0.4), "n": 40}
        for model in models
        for name in methods
        for region in ("marker", "lungs")
    ]
    return {
        "agreement": pd.DataFrame(agreement), "model_agreement": pd.DataFrame(between),
        "paired_tests": pd.DataFrame(tests),
        "costs": pd.DataFrame(costs), "regions": pd.DataFrame(regions),
    }  # fmt: skip

"""How good are the classifiers whose explanations are compared: tables of all models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxrx.compare.corpus import Corpus
from cxrx.compare.notes import Notes
from cxrx.metrics import thresholds as rules
from cxrx.metrics.bootstrap import PatientBootstrap
from cxrx.metrics.classification import COLUMNS, CURVES, classifier_curves, classify


@dataclass
class Classifier:
    """Tables ``classification``, ``classifier_curves`` and ``thresholds``, each with a column model."""

    classification: pd.DataFrame
    curves: pd.DataFrame
    thresholds: pd.DataFrame


def classifier(corpus: Corpus, bootstrap: PatientBootstrap, seed: int, notes: Notes) -> Classifier:
    """Score every model of the results against the labels.

    Parameters
    ----------
    corpus
        The open results.
    bootstrap, seed
        What draws patients, and folds of them.
    notes
        Takes what is left out.
    """
    rows, points, judged = [], [], []
    for model in corpus.models.values():
        ids = [image_id for image_id in corpus.films if image_id in model.probability]
        if not ids:
            notes.skip(f"classification of {model.slug}", "the results hold no predictions of it")
            continue
        labels = np.array([[corpus.labels.get(i, {}).get(name, -2) for name in model.findings] for i in ids])
        if not np.isin(labels, (0, 1)).any():
            notes.skip(f"classification of {model.slug}", "no label is about one of its findings")
            continue
        probabilities = np.stack([model.probability[i] for i in ids])
        patients = [corpus.films[i].patient for i in ids]
        scored = classify(
            labels, probabilities, model.findings, patients=patients, bootstrap=bootstrap, thresholds=model.thresholds
        )
        table = rules.threshold_table(
            labels, probabilities, model.findings,
            patients=patients, thresholds=model.thresholds, stored_rule=model.threshold_rule, seed=seed,
        )  # fmt: skip
        named = {"model": model.slug}
        rows += [named | row for row in scored]
        points += [named | row for row in classifier_curves(labels, probabilities, model.findings)]
        judged += [named | row for row in table]
        refused = [row for row in scored if row["finding"] != "all" and row["note"]]
        for row in refused:
            notes.skip(f"AUROC of {row['finding']} ({model.slug})", row["note"])
    return Classifier(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        pd.DataFrame(points, columns=["model", *CURVES]),
        pd.DataFrame(judged, columns=["model", *rules.COLUMNS]),
    )

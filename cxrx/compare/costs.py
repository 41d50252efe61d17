"""What a map costs: seconds, as the runs that made the results took them."""

from __future__ import annotations

import pandas as pd

from cxrx.compare.corpus import Corpus

COLUMNS = ("model", "method", "seconds_a_map", "maps", "device")
CONVENTION = "seconds a map over all maps that were made in one process, on the device named; decoding not counted"


def costs(corpus: Corpus) -> pd.DataFrame:
    """Return a row per model, method and device; none for maps whose runs did not record it (imported ones)."""
    spent: dict[tuple[str, str, str], list[float]] = {}
    for results in corpus.files:
        for run in results.runs():
            for method, cost in (run.get("cost") or {}).items():
                entry = spent.setdefault((run["model"], method, str(run.get("device", ""))), [0.0, 0.0])
                entry[0] += cost["seconds"]
                entry[1] += cost["maps"]
    rows = [
        (model, method, seconds / maps, int(maps), device)
        for (model, method, device), (seconds, maps) in spent.items()
        if maps and model in corpus.models and method in corpus.models[model].methods
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))

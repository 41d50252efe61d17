"""Every convention beside its number: what stands in the report and in compare.json."""

from __future__ import annotations

from collections.abc import Mapping

from cxrx import __version__
from cxrx.compare.costs import CONVENTION as COST
from cxrx.compare.localisation.confusion import CONVENTION as CONFUSION
from cxrx.compare.regions import mass as regions
from cxrx.compare.sanity.judge import CONVENTION as SANITY_VERDICT
from cxrx.compare.selection import SANITY_PAIRS, Selection
from cxrx.metrics import agreement as agree
from cxrx.metrics import bootstrap, classification, localisation, paired, strata, thresholds
from cxrx.metrics.protocols import Protocol
from cxrx.metrics.similarity import METRICS as SANITY
from cxrx.specs import Measure

INTERVAL = "95 %, over patients (a patient's films stay together); none under 10 patients. " + "; ".join(
    f"{what}: {how}" for what, how in bootstrap.CONVENTIONS.items()
)
PUBLISHED_INTERVAL = (
    "95 %: the 25th and 975th of 1,000 sorted means over films drawn again with seed 0, as CheXlocalize computes it; "
    "replicates without a film of the finding are left out; the value is the plain mean, not that of the replicates"
)
PAIRS = (
    "methods and controls are compared on the pairs of film and finding that all of them have, which n counts (in a "
    "row of one finding those without any pair of it do not count); per_pair.csv holds the others too"
)
PROTOCOLS: dict[Protocol, str] = {
    "native": "native: maps {form} are carried to the pixels {where}, bilinear; what the crop cut off is 0",
    "chexlocalize": "chexlocalize (Saporta 2022): maps as they are stored, resized to the source picture, min-max, "
    "255 m truncated, Otsu over 256 bins, holes filled, single pixels dropped; hit at the first maximum in row-major "
    "order",
    "arun": "arun (Arun 2021): the area under the precision-recall curve of the map's pixels against the truth's, on "
    "the source picture; maps {form}",
}
FORMS = {
    False: "in their published form (with the ReLU where the method has one)",
    True: "as they are stored (--signed)",
}


def conventions(
    selection: Selection,
    protocol: Protocol,
    plugin_metrics: Mapping[str, Mapping[str, Measure]],
    *,
    signed: bool = False,
) -> dict[str, str]:
    """Return what every number of a comparison means, by section and name.

    Parameters
    ----------
    selection
        What was computed.
    protocol
        How localisation was scored.
    plugin_metrics
        What the numbers of plugins' metrics are, by kind and key.
    signed
        Whether maps were scored as they are stored.
    """
    said: dict[str, str] = {}
    if "localisation" in selection.sections:
        said |= _localisation(selection, protocol, signed=signed)
    if {"localisation", "agreement"} & set(selection.sections):
        said |= {f"strata: {name}": text for name, text in strata.CONVENTIONS.items()}
    if "agreement" in selection.sections:
        said["agreement: maps"] = (
            f"maps {FORMS[signed]}; those of two models are brought to what the first of them saw of the film"
        )
        said |= {f"agreement: {name}": agree.METRICS[name] for name in selection.similarities}
        said["agreement: models"] = (
            "reproducibility over networks: on pairs that no model classifies wrong, as far as labels tell"
        )
        said["agreement: random_pair"] = "the same number for maps of the same finding on films of different patients"
        said["strata: dispersion"] = agree.DISPERSION
    if "classification" in selection.sections:
        said |= {f"classification: {name}": text for name, text in classification.CONVENTIONS.items()}
        said |= {f"thresholds: {name}": text for name, text in thresholds.CONVENTIONS.items()}
    if "faithfulness" in selection.sections:
        said["faithfulness: f"] = (
            "what the maps explain: the log-odds of the finding (sigmoid: its logit; softmax: z - logsumexp of the "
            "other classes), or its raw logit where all of a model's maps explain that (--score logit)"
        )
        said["faithfulness: sample"] = f"at most {selection.pairs} pairs of film and finding a model, drawn by seed"
        said["faithfulness: maps"] = f"maps {FORMS[signed]}, bilinear on the model's input"
        for family in selection.families:
            said |= {f"faithfulness: {name}": measure.sentence for name, measure in family.measures.items()}
    if "sanity" in selection.sections:
        said["sanity: sample"] = (
            f"at most {min(selection.pairs, SANITY_PAIRS)} pairs of film and finding a model, drawn by seed; maps in "
            "their published form"
        )
        said["sanity: verdict"] = SANITY_VERDICT
        said |= {f"sanity: {name}": text for name, text in SANITY.items()}
    for kind, measures in plugin_metrics.items():
        said |= {f"{kind}: {key}": _described(measure) for key, measure in measures.items()}
    said |= {f"regions: {name}": text for name, text in regions.CONVENTIONS.items()}
    said |= {f"tests: {name}": text for name, text in paired.CONVENTIONS.items()}
    if {"localisation", "faithfulness"} & set(selection.sections):
        said["pairs"] = PAIRS
    said["cost"] = COST
    said["interval"] = INTERVAL
    said["version"] = f"cxrx {__version__}"
    return said


def _described(measure: Measure) -> str:
    """Return the sentence of a plugin's number, with its direction."""
    way = {True: "higher is better", False: "lower is better", None: "it judges no map"}[measure.higher_is_better]
    return f"{measure.sentence or 'a metric of a plugin'}; {way}"


def _localisation(selection: Selection, protocol: Protocol, *, signed: bool) -> dict[str, str]:
    said = {f"localisation: {name}": text for name, text in localisation.PROTOCOL_METRICS[protocol].items()}
    for other in selection.protocols:
        if other != protocol:
            metrics = localisation.PROTOCOL_METRICS[other]
            said |= {f"localisation: {other}_{name}": text for name, text in metrics.items()}
            said[f"localisation: protocol {other}"] = PROTOCOLS[other].format(form=FORMS[signed])
    if selection.detailed:
        if protocol == "native":
            said |= {f"localisation: {name}": text for name, text in localisation.DETAILED.items()}
        said["localisation: confusion"] = CONFUSION
    where = "of the source picture" if selection.grid is None else f"of a grid whose longer side has {selection.grid}"
    said["localisation: protocol"] = PROTOCOLS[protocol].format(where=where, form=FORMS[signed])
    if protocol == "chexlocalize":
        said["localisation: interval"] = PUBLISHED_INTERVAL
    said["localisation: controls"] = (
        "centre (a Gaussian in the middle) and random never saw the picture or the model, edge (Sobel magnitude) saw "
        "the picture only; prior is the mean truth of the finding on the other patients' films"
    )
    said["localisation: skill"] = "(value - prior) / (1 - prior), where 1 is the best and both have the same n"
    return said

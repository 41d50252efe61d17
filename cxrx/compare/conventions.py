"""Every convention beside its number: what stands in the report and in compare.json."""

from __future__ import annotations

from cxrx import __version__
from cxrx.compare.costs import CONVENTION as COST
from cxrx.compare.faithfulness import FAMILIES
from cxrx.compare.localisation.confusion import CONVENTION as CONFUSION
from cxrx.compare.plan import SANITY_PAIRS, Plan
from cxrx.compare.regions import mass as regions
from cxrx.compare.sanity.judge import CONVENTION as SANITY_VERDICT
from cxrx.metrics import agreement as agree
from cxrx.metrics import classification, localisation, paired, strata, thresholds
from cxrx.metrics.protocols import Protocol
from cxrx.metrics.similarity import METRICS as SANITY

INTERVAL = "95 %: percentiles of a bootstrap over patients (a patient's films stay together); none under 10 patients"
PUBLISHED_INTERVAL = (
    "95 %: the 25th and 975th of 1,000 sorted means over films drawn again with seed 0, as CheXlocalize computes it; "
    "replicates without a film of the finding are left out; the value is the plain mean, not that of the replicates"
)
PROTOCOLS: dict[Protocol, str] = {
    "native": "native: maps {form} are carried to the pixels {where}, bilinear; what the crop cut off is 0",
    "chexlocalize": "chexlocalize (Saporta 2022): maps as they are stored, resized to the source picture, min-max, "
    "255 m truncated, Otsu over 256 bins, holes filled; hit at the first maximum in row-major order",
    "arun": "arun (Arun 2021): the area under the precision-recall curve of the map's pixels against the truth's, on "
    "the source picture; maps {form}",
}
FORMS = {
    False: "in their published form (with the ReLU where the method has one)",
    True: "as they are stored (--signed)",
}


def conventions(plan: Plan, protocol: Protocol, *, signed: bool = False) -> dict[str, str]:
    """Return what every number of a comparison means, by section and name."""
    said: dict[str, str] = {}
    if "localisation" in plan.sections:
        said |= _localisation(plan, protocol, signed=signed)
    if {"localisation", "agreement"} & set(plan.sections):
        said |= {f"strata: {name}": text for name, text in strata.CONVENTIONS.items()}
    if "agreement" in plan.sections:
        said["agreement: maps"] = (
            f"maps {FORMS[signed]}; those of two models are brought to what the first of them saw of the film"
        )
        said |= {f"agreement: {name}": agree.METRICS[name] for name in plan.similarities}
        said["agreement: models"] = (
            "reproducibility over networks: on pairs that no model classifies wrong, as far as labels tell"
        )
        said["agreement: random_pair"] = "the same number for maps of the same finding on films of different patients"
        said["strata: spread"] = agree.SPREAD
    if "classification" in plan.sections:
        said |= {f"classification: {name}": text for name, text in classification.CONVENTIONS.items()}
        said |= {f"thresholds: {name}": text for name, text in thresholds.CONVENTIONS.items()}
    if "faithfulness" in plan.sections:
        said["faithfulness: f"] = "the logit of the finding that the map explains (two-class softmax: z1 - z0)"
        said["faithfulness: sample"] = f"at most {plan.pairs} pairs of film and finding a model, drawn by seed"
        said["faithfulness: maps"] = f"maps {FORMS[signed]}, bilinear on the model's input"
        for family in plan.faithfulness:
            said |= {f"faithfulness: {name}": text for name, text in FAMILIES[family].items()}
    if "sanity" in plan.sections:
        said["sanity: sample"] = (
            f"at most {min(plan.pairs, SANITY_PAIRS)} pairs of film and finding a model, drawn by seed; maps in their "
            "published form"
        )
        said["sanity: verdict"] = SANITY_VERDICT
        said |= {f"sanity: {name}": text for name, text in SANITY.items()}
    said |= {f"regions: {name}": text for name, text in regions.CONVENTIONS.items()}
    said |= {f"tests: {name}": text for name, text in paired.CONVENTIONS.items()}
    said["cost"] = COST
    said["interval"] = INTERVAL
    said["version"] = f"cxrx {__version__}"
    return said


def _localisation(plan: Plan, protocol: Protocol, *, signed: bool) -> dict[str, str]:
    said = {f"localisation: {name}": text for name, text in localisation.PROTOCOL_METRICS[protocol].items()}
    for other in plan.protocols:
        if other != protocol:
            metrics = localisation.PROTOCOL_METRICS[other]
            said |= {f"localisation: {other}_{name}": text for name, text in metrics.items()}
            said[f"localisation: protocol {other}"] = PROTOCOLS[other].format(form=FORMS[signed])
    if plan.detailed:
        if protocol == "native":
            said |= {f"localisation: {name}": text for name, text in localisation.DETAILED.items()}
        said["localisation: confusion"] = CONFUSION
    where = "of the source picture" if plan.grid is None else f"of a grid whose longer side has {plan.grid}"
    said["localisation: protocol"] = PROTOCOLS[protocol].format(where=where, form=FORMS[signed])
    if protocol == "chexlocalize":
        said["localisation: interval"] = PUBLISHED_INTERVAL
    said["localisation: controls"] = (
        "centre (a Gaussian in the middle) and random never saw the picture or the model, edge (Sobel magnitude) saw "
        "the picture only; prior is the mean truth of the finding on the other patients' films"
    )
    said["localisation: skill"] = "(value - prior) / (1 - prior), where 1 is the best and both have the same n"
    return said

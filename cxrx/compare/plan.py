"""What a comparison is asked for: sections, the metrics within them, and how fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cxrx.compare.faithfulness import FAMILIES, SUITES
from cxrx.compare.faithfulness import METRICS as FAITHFULNESS
from cxrx.compare.localisation.table import FAST_GRID
from cxrx.errors import UsageError
from cxrx.metrics import agreement as agree
from cxrx.metrics.protocols import Protocol
from cxrx.registry import load
from cxrx.specs import MetricSpec

SECTIONS = ("classification", "localisation", "agreement", "faithfulness", "sanity")
TESTS = ("randomisation", "repeatability", "noise", "sensitivity")
SUITE_NAMES = ("auto", "fast", "full")
AUTO_PAIRS, FULL_PAIRS, SANITY_PAIRS = 20, 100, 24
PUBLISHED: tuple[Protocol, ...] = ("chexlocalize", "arun")
AUTO_FAITHFULNESS = ("deletion", "insertion")


@dataclass(frozen=True)
class Plan:
    """What to compute.

    Attributes
    ----------
    sections
        Some of :data:`SECTIONS`.
    grid
        Longer side of the grid for localisation; None: the films' own pixels.
    detailed
        Also the slower localisation metrics.
    protocols
        Published protocols whose numbers stand beside those of the chosen one, in columns of their own.
    similarities
        Metrics of agreement.
    faithfulness
        Families of :data:`cxrx.compare.faithfulness.FAMILIES`.
    tests
        Sanity tests.
    extra
        Metrics of plugins, by full name.
    pairs
        At most how many pairs of film and finding a metric that runs the model takes.
    left_out
        (what, why) of what the suite does not hold.
    """

    sections: tuple[str, ...]
    grid: int | None = None
    detailed: bool = False
    protocols: tuple[Protocol, ...] = ()
    similarities: tuple[str, ...] = agree.FAST
    faithfulness: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    extra: dict[str, MetricSpec] = field(default_factory=dict)
    pairs: int = AUTO_PAIRS
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> list[str]:
        """What was asked for, for the record."""
        return [*self.sections, *self.protocols, *self.faithfulness, *self.tests, *self.extra]

    def extra_of(self, kind: str) -> dict[str, MetricSpec]:
        """Return the metrics of plugins of one kind."""
        return {name: spec for name, spec in self.extra.items() if spec.kind == kind}


def make_plan(metrics: str | Sequence[str], max_pairs: int | None = None) -> Plan:
    """Turn ``auto``, ``fast``, ``full`` or names into a plan.

    Raises
    ------
    UsageError
        A name is no section, metric or test.
    """
    names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    if not any(names):
        raise UsageError(f"no metric is named; there are {', '.join((*SUITE_NAMES, *SECTIONS))}, or single ones")
    if len(names) == 1 and names[0] in SUITE_NAMES:
        return _suite(names[0], max_pairs)
    registry = load().metrics
    sections: list[str] = []
    protocols: list[Protocol] = []
    families, tests, extra = [], [], {}
    for name in names:
        if name in SUITE_NAMES:
            raise UsageError(f"--metrics is {', '.join(SUITE_NAMES)} or names, not both")
        if name in SECTIONS:
            sections.append(name)
        elif name in PUBLISHED:  # the metric of that name would be given maps that are not raw
            sections.append("localisation")
            protocols.append(name)
        elif name in TESTS:
            sections.append("sanity")
            tests.append(name)
        elif name in FAMILIES or name in FAITHFULNESS:
            sections.append("faithfulness")
            families.append(next(family for family, scores in FAMILIES.items() if name == family or name in scores))
        else:
            full = registry.full_name(name)
            extra[full] = registry[full]
            sections.append(registry[full].kind)
    if "faithfulness" in names:
        families = [*SUITES["fast"], *families]
    return Plan(
        tuple(section for section in SECTIONS if section in sections),
        protocols=tuple(dict.fromkeys(protocols)),
        faithfulness=tuple(dict.fromkeys(families)),
        tests=tuple(dict.fromkeys(tests or (TESTS if "sanity" in sections else ()))),
        extra=extra,
        pairs=max_pairs or FULL_PAIRS,
    )


def _suite(name: str, max_pairs: int | None) -> Plan:
    foreign = {key: spec for key, spec in load().metrics.items() if not key.startswith("cxrx/")}
    cheap = {key: spec for key, spec in foreign.items() if spec.kind != "faithfulness"}
    if name == "fast":
        why = "--metrics fast does not run the model; ask for auto or full"
        left_out = tuple((what, why) for what in SECTIONS[3:])
        return Plan(SECTIONS[:3], grid=FAST_GRID, extra=cheap, left_out=left_out)
    if name == "auto":
        why = "it explains films again and again with randomised networks; ask for it with --metrics full or sanity"
        return Plan(
            SECTIONS[:4],
            faithfulness=AUTO_FAITHFULNESS,
            extra=foreign,
            pairs=max_pairs or AUTO_PAIRS,
            left_out=(("sanity", why),),
        )
    return Plan(
        SECTIONS,
        detailed=True,
        protocols=PUBLISHED,
        similarities=tuple(agree.METRICS),
        faithfulness=SUITES["full"],
        tests=TESTS,
        extra=foreign,
        pairs=max_pairs or FULL_PAIRS,
    )

"""What a comparison is asked for: sections, the metrics within them, and how fine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cxrx.compare.faithfulness import DEFAULT, FAMILIES
from cxrx.compare.faithfulness.family import Family
from cxrx.compare.localisation.table import BASE, FAST_GRID
from cxrx.compare.specs import SectionMetric
from cxrx.errors import UsageError
from cxrx.metrics import agreement as agree
from cxrx.metrics import localisation
from cxrx.metrics.protocols import Protocol
from cxrx.registry import load
from cxrx.specs import MetricSpec

SECTIONS = ("classification", "localisation", "agreement", "faithfulness", "sanity")
METRIC_KINDS = SECTIONS[1:4]
"""Sections that plugins add metrics to."""
TESTS = ("randomisation", "repeatability", "noise", "sensitivity")
SUITE_NAMES = ("auto", "fast", "full")
AUTO_PAIRS, FULL_PAIRS, SANITY_PAIRS = 20, 100, 24


@dataclass(frozen=True)
class Selection:
    """What to compute.

    Attributes
    ----------
    sections
        Some of :data:`SECTIONS`.
    grid
        Longer side of the grid for localisation; None: the films' own pixels.
    detailed
        Also the slower localisation metrics.
    similarities
        Metrics of agreement.
    tests
        Sanity tests.
    metrics
        The registered metrics, by full name: those of compare's own sections, families, and any others.
    pairs
        At most how many pairs of film and finding a metric that runs the model takes.
    left_out
        (what, why) of what the suite does not hold.
    """

    sections: tuple[str, ...]
    grid: int | None = None
    detailed: bool = False
    similarities: tuple[str, ...] = agree.FAST
    tests: tuple[str, ...] = ()
    metrics: Mapping[str, MetricSpec] = field(default_factory=dict)
    pairs: int = AUTO_PAIRS
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """Published protocols whose numbers stand beside those of the chosen one, in columns of their own."""
        named = [spec.protocol for spec in self.metrics.values() if isinstance(spec, SectionMetric)]
        return tuple(protocol for protocol in named if protocol is not None)

    @property
    def families(self) -> list[Family]:
        """Metrics of faithfulness that are computed for all methods at once."""
        return [spec for spec in self.metrics.values() if isinstance(spec, Family)]

    def single(self, kind: str = "") -> dict[str, MetricSpec]:
        """Return the metrics that are called map by map or batch by batch, by full name; of one kind, or all."""
        return {
            name: spec
            for name, spec in self.metrics.items()
            if not isinstance(spec, SectionMetric | Family) and kind in ("", spec.kind)
        }

    @property
    def names(self) -> list[str]:
        """What was asked for, for the record."""
        families = [family.name for family in self.families]
        return [*self.sections, *self.protocols, *families, *self.tests, *self.single()]


def select(metrics: str | Sequence[str], max_pairs: int | None = None) -> Selection:
    """Turn ``auto``, ``fast``, ``full`` or names into what to compute.

    Raises
    ------
    UsageError
        A name is no section, metric or test.
    """
    names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    if not any(names):
        raise UsageError("no metric is named", f"known: {', '.join((*SUITE_NAMES, *SECTIONS))}, or single ones")
    suite = len(names) == 1 and names[0] in SUITE_NAMES
    return _without_clashes(_suite(names[0], max_pairs) if suite else _named(names, max_pairs))


def _named(names: Sequence[str], max_pairs: int | None) -> Selection:
    registry = load().metrics
    sections: list[str] = []
    tests: list[str] = []
    chosen: list[str] = list(DEFAULT) if "faithfulness" in names else []
    for name in names:
        if name in SUITE_NAMES:
            raise UsageError(f"--metrics is {', '.join(SUITE_NAMES)} or names, not both")
        if name in SECTIONS:
            sections.append(name)
        elif name in TESTS:
            sections.append("sanity")
            tests.append(name)
        else:
            family = next((family.name for family in FAMILIES if name in family.measures), name)
            chosen.append(family)
            sections.append(registry.find(family).kind)
    return Selection(
        tuple(section for section in SECTIONS if section in sections),
        tests=tuple(dict.fromkeys(tests or (TESTS if "sanity" in sections else ()))),
        metrics={full: registry[full] for full in map(registry.full_name, chosen)},
        pairs=max_pairs or FULL_PAIRS,
    )


def _without_clashes(selection: Selection) -> Selection:
    """Leave out families with a score that another metric had before."""
    owners, metrics = taken_keys("faithfulness"), dict(selection.metrics)
    left_out = list(selection.left_out)
    for full, spec in selection.metrics.items():
        clash = next((key for key in spec.measures if owners[key] != full), "") if isinstance(spec, Family) else ""
        if clash:
            del metrics[full]
            left_out.append((full, f"{owners[clash]} has a number called {clash} already"))
    return replace(selection, metrics=metrics, left_out=tuple(left_out))


def taken_keys(kind: str) -> dict[str, str]:
    """Return the keys that numbers of a kind have already, each with whose it is: the first that declares it."""
    ours = {"localisation": localisation.KEYS, "agreement": agree.METRICS, "faithfulness": ()}[kind]
    owners = dict.fromkeys((*BASE, "method"), "the table") | dict.fromkeys(ours, f"cxrx/{kind}")
    for full, spec in load().metrics.items():
        if spec.kind == kind:
            owners = dict.fromkeys(spec.measures, full) | owners
    return owners


def _suite(name: str, max_pairs: int | None) -> Selection:
    sections = {"fast": SECTIONS[:3], "auto": SECTIONS[:4], "full": SECTIONS}[name]
    metrics = {full: spec for full, spec in load().metrics.items() if name in spec.suites and spec.kind in sections}
    if name == "fast":
        why = "--metrics fast does not run the model; ask for auto or full"
        left_out = tuple((what, why) for what in SECTIONS[3:])
        return Selection(sections, grid=FAST_GRID, metrics=metrics, left_out=left_out)
    if name == "auto":
        why = "it explains films again and again with randomised networks; ask for it with --metrics full or sanity"
        return Selection(sections, metrics=metrics, pairs=max_pairs or AUTO_PAIRS, left_out=(("sanity", why),))
    return Selection(
        sections,
        detailed=True,
        similarities=tuple(agree.METRICS),
        tests=TESTS,
        metrics=metrics,
        pairs=max_pairs or FULL_PAIRS,
    )

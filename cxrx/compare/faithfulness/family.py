"""A faithfulness metric as one object: what it asks of the model, how the answers are scored, and what that means.

Cheap to import, as are the families: they are listed before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cxrx.specs import Measure, MetricSpec, Score

if TYPE_CHECKING:
    from cxrx.compare.faithfulness.case import Asked, Case
    from cxrx.explainers.option_types import Baseline

PROBABILITY = "of the probability in the place of the logit"
_NORMALISED = "of (f - f(baseline)) / (f(x) - f(baseline)); NaN where the denominator is below 0.1"


@dataclass(frozen=True, kw_only=True)
class Family(MetricSpec):
    """Scores that come from the same changed pictures.

    Attributes
    ----------
    perturb
        ``perturb(case)`` returns the changed pictures ``(C, H, W)`` of one film, for all of its maps, and the function
        that reads the model's answers. That function holds on to nothing large: it is kept until all pictures of the
        batch have been run.
    baseline
        What replaces pixels: its logits are among the references, and curves are drawn on the scale from it to the
        picture. None: nothing does, and there are no curves.
    measures
        All scores that it gives, in the order of the tables.
    """

    kind: Literal["localisation", "agreement", "faithfulness"] = field(default="faithfulness", init=False)
    compute: Callable[..., dict[str, Any]] = field(init=False, repr=False, compare=False)
    perturb: Callable[[Case], Asked]
    baseline: Baseline | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "compute", self._compute)

    def _compute(self, model: Any, x: Any, maps: Any, targets: Any) -> dict[str, Any]:
        """Score a batch; what is random comes from the pictures' own values."""
        from cxrx.compare.faithfulness.score import score_faithfulness
        from cxrx.explainers.seeds import derive_seed, tensor_id

        seeds = [derive_seed(0, tensor_id(picture)) for picture in x]
        score: Score = model.score or "log-odds"
        return dict(score_faithfulness(model, x, maps, targets, (self,), seeds=seeds, score=score).scores)


def measured(sentence: str, source: str = "", *, higher_is_better: bool, unit: str = "") -> Measure:
    """Describe a score that judges a map, with its direction and its source in the sentence.

    Parameters
    ----------
    sentence, source
        How the score is computed, and who published it.
    higher_is_better, unit
        As in :class:`cxrx.Measure`.
    """
    said = f"{sentence}; {'higher' if higher_is_better else 'lower'} is better" + (f" ({source})" if source else "")
    return Measure(said, higher_is_better, unit)


def three_forms(name: str, sentence: str, source: str = "", *, higher_is_better: bool) -> dict[str, Measure]:
    """Describe a score of the logit, of the probability, and of the logit on a scale from baseline to picture.

    Parameters
    ----------
    name
        Key of the score of the logit.
    sentence, source, higher_is_better
        As for :func:`measured`.
    """
    return {
        name: measured(sentence, source, higher_is_better=higher_is_better, unit="logits"),
        f"{name}_probability": Measure(f"{name} {PROBABILITY}", higher_is_better),
        f"{name}_normalised": Measure(f"{name} {_NORMALISED}", higher_is_better),
    }

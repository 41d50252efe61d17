"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cxrx.options import options_dict
from cxrx.reading.options import ReadOptions
from cxrx.specs import ExplainerSpec, Score

if TYPE_CHECKING:
    from cxrx.engine.targets import Rule
    from cxrx.models.model import Model

Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class RunOptions:
    """How a run goes about its work; only `dtype`, `seed`, `score` and `read` decide numbers.

    Attributes
    ----------
    batch_size
        Films a forward; ``"auto"`` is chosen once, kept with the parts and used again on resume.
    workers
        Decode processes; None: one per core; 0: decode in this process, without its safety.
    dtype
        Of the forward passes behind predictions. Attributions are always fp32.
    score
        What maps explain: ``"log-odds"`` of the finding, or its raw ``"logit"``; see :func:`cxrx.explain`.
    targets
        ``"auto"`` (predicted positive, truth-positive and the top one), ``"positive"``, ``"truth"``, ``"top"``,
        ``"all"``, or names of findings.
    limit
        Only the first films of the list.
    resume
        Go on with the parts of an interrupted run; False: throw them away.
    add
        Allow films that an existing results file does not hold.
    retry_failed
        Try the films again that failed before.
    truth
        A table or folder of labels and boxes; None: look beside the films.
    images
        Where to look for moved films, by hash.
    """

    batch_size: int | Literal["auto"] = "auto"
    workers: int | None = None
    dtype: Dtype = "fp32"
    seed: int = 0
    score: Score = "log-odds"
    targets: Rule = "auto"
    limit: int | None = None
    resume: bool = True
    add: bool = False
    retry_failed: bool = False
    truth: Path | None = None
    images: Path | None = None
    read: ReadOptions = field(default_factory=ReadOptions)


@dataclass(frozen=True)
class MethodRequest:
    """One attribution method of a run: its spec, its options, and the name it is stored under."""

    key: str
    spec: ExplainerSpec
    options: Any

    @property
    def evaluations(self) -> float:
        """At most how many forward and backward passes a film and finding cost."""
        return 1.0 if self.spec.evaluations is None else float(self.spec.evaluations(self.options))

    def plain_options(self) -> dict[str, Any]:
        """Return the options as JSON knows them."""
        return options_dict(self.options)


def prediction_settings(model: Model, options: RunOptions) -> dict[str, Any]:
    """Return everything that decides the numbers of a prediction; its hash is the fingerprint."""
    return {
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "labels": list(model.labels),
        "input": asdict(model.input),
        "output": model.output,
        "activation": model.activation,
        "dtype": options.dtype,
        "polarity": options.read.polarity,
        "views": sorted(options.read.views),
        "voi_index": options.read.voi_index,
        "frame": options.read.frame,
    }


def map_settings(model: Model, options: RunOptions, method: MethodRequest) -> dict[str, Any]:
    """Return everything that decides the numbers of a map."""
    return prediction_settings(model, options) | {
        "method": method.spec.name,
        "options": method.plain_options(),
        "seed": options.seed,
        "score": options.score,
    }

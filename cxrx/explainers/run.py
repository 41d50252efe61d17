"""Explain pictures in memory: the function behind ``cxrx.explain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch.nn import functional

from cxrx.errors import PluginError, UsageError
from cxrx.explainers.fit import check_fit, telling
from cxrx.explainers.guard import guard
from cxrx.explainers.seeds import derive_seed, tensor_id
from cxrx.explainers.targets import EMPTY, Targets, check_score, resolve_targets
from cxrx.models.inference import auto_batch_size, halving, pad_batch, predict_logits
from cxrx.options import options_dict, parse_options
from cxrx.registry import load as load_registry
from cxrx.specs import Explainer, Maps, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from cxrx.models.model import Model

    FloatArray = NDArray[np.float32]


@dataclass
class Attribution:
    """Maps of a batch of pictures.

    Attributes
    ----------
    values
        ``(B, T, h, w)`` float32 on the method's native grid, signed where the method is; 0 where nothing was asked.
    present
        ``(B, T)`` bool, whether a target was asked for.
    scores
        ``(B, T)`` float32, what was explained; NaN where absent.
    targets
        ``(B, T)`` int64, indices into `labels`; -1 where absent.
    method
        Name of the method; `options` are all of its options, `seed` its seed.
    score
        Whether log-odds were explained or the raw logits; see :func:`explain`.
    relu
        Whether the published form of the method shows positive values only.
    extras
        What else the method found, ``(B, T, ...)`` each.
    labels
        The model's findings.
    input_size
        ``(H, W)`` of the prepared pictures.
    pictures
        ``(B, H, W)`` float32, the prepared pictures brought to [0, 1] each, to show maps on.
    """

    values: FloatArray
    present: NDArray[np.bool_]
    scores: FloatArray
    targets: NDArray[np.int64]
    method: str
    options: dict[str, Any]
    seed: int
    labels: tuple[str, ...]
    input_size: tuple[int, int]
    pictures: FloatArray
    score: Score = "log-odds"
    relu: bool = False
    signed: bool = False
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)

    def upsample(self, size: tuple[int, int] | None = None, *, relu: bool = False) -> FloatArray:
        """Return the maps at `size` ``(H, W)``, by default that of the input, as ``(B, T, H, W)``.

        Bilinear, pixel centres at integers plus a half (``align_corners=False``), antialiased where it gets smaller.
        With `relu` negative values are set to 0 before, on the native grid.
        """
        values = torch.from_numpy(self.values)
        values = values.clamp(min=0) if relu else values
        size = size or self.input_size
        smaller = size[0] < values.shape[2] or size[1] < values.shape[3]
        resized = functional.interpolate(values, size, mode="bilinear", align_corners=False, antialias=smaller)
        return np.asarray(resized.numpy(), dtype=np.float32)

    def show(self) -> Figure:
        """Draw every map over its picture: a row for each picture, a column for each target."""
        from matplotlib.figure import Figure

        B, T = self.targets.shape
        figure = Figure(figsize=(2.5 * T, 2.8 * B), layout="constrained")
        axes: Any = figure.subplots(B, T, squeeze=False)
        maps = self.upsample(relu=self.relu)
        for b, t in np.ndindex(B, T):
            axes[b, t].set_axis_off()
            if not self.present[b, t]:
                continue
            limit = float(np.abs(maps[b, t]).max()) or 1.0
            diverging = self.signed and not self.relu
            axes[b, t].imshow(self.pictures[b], cmap="gray")
            axes[b, t].imshow(
                maps[b, t],
                cmap="RdBu_r" if diverging else "inferno",
                alpha=0.5,
                vmin=-limit if diverging else 0,
                vmax=limit,
            )
            axes[b, t].set_title(f"{self.labels[self.targets[b, t]]} {self.scores[b, t]:+.2f}", fontsize=8)
        return figure


def explain(
    model: Model,
    x: torch.Tensor,
    method: str,
    targets: Targets = "top",
    seed: int = 0,
    *,
    score: str = "log-odds",
    image_ids: Sequence[str] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    **options: Any,
) -> Attribution:
    """Explain findings of `model` on prepared pictures.

    Parameters
    ----------
    model
        What `load_model` or `wrap_model` returned. Its state is the same afterwards.
    x
        ``(B, C, H, W)`` prepared pictures, as from ``model.prepare``.
    method
        Name of a registered explainer.
    targets
        ``"all"``, ``"top"``, findings, indices ``(B,)`` or ``(B, T)`` with -1 for none.
    seed
        Stochastic methods depend on this, the method, and the picture, and on nothing else.
    score
        ``"log-odds"`` of the finding, log p / (1 - p): of a sigmoid its logit, of a softmax z_k - logsumexp of the
        other classes (two classes: z1 - z0). ``"logit"``: the raw logit, as other libraries have it; of a sigmoid the
        same. Also the option of that name of a method that has one: of ``"rise"``, ``"probability"``.
    image_ids
        What a picture's noise is seeded with; default: a hash of its tensor.
    batch_size
        Pictures at once. When memory runs out, halves are tried.
    **options
        Of the method.

    Raises
    ------
    UsageError
        The method, a target or an option does not exist or does not fit the model; the sentence says what does.

    Examples
    --------
    >>> import cxrx, torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> model = cxrx.wrap_model(network, ["Mass", "Nodule"], input_size=32)
    >>> a = cxrx.explain(model, model.prepare(torch.rand(3, 32, 32)), "gradcam", targets="all")
    >>> a.values.shape, a.upsample(relu=True).shape
    ((3, 2, 30, 30), (3, 2, 32, 32))
    >>> cxrx.explain(model, model.prepare(torch.rand(3, 32, 32)), "smoothgrad", targets="Mass", n=5).targets.tolist()
    [[0], [0], [0]]
    """
    spec = load_registry().explainers.find(method)
    if score not in get_args(Score) and "score" in {option.name for option in fields(spec.options)}:
        options["score"], score = score, "log-odds"
    score = check_score(score)
    parsed: Any = parse_options(spec.options, options, spec.name)
    check_fit(model, spec, parsed)
    x = _check_pictures(model, x)
    if batch_size != "auto" and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    size = min(auto_batch_size(model.device) if batch_size == "auto" else batch_size, len(x))
    explained = model.explaining(score)
    # A clone, because a network may begin with an in-place operation.
    scores = torch.cat([predict_logits(explained, part.clone(), size) for part in torch.split(x, size)])
    indices = resolve_targets(targets, model.labels, model.scored(scores))
    ids = list(image_ids) if image_ids is not None else [tensor_id(picture) for picture in x]
    if len(ids) != len(x):
        raise UsageError(f"there are {len(ids)} image ids for {len(x)} pictures")
    seeds = torch.tensor([derive_seed(seed, spec.name, image_id) for image_id in ids])
    explainer = spec.build(parsed)
    pieces = [
        piece
        for part, wanted, drawn in zip(x.split(size), indices.split(size), seeds.split(size), strict=True)  # type: ignore[no-untyped-call]
        for piece in run_explainer(explained, explainer, part, wanted, drawn, size)
    ]
    values = torch.cat([piece.values for piece in pieces])
    if not bool(values.isfinite().all()):
        half = any(p.dtype in {torch.float16, torch.bfloat16} for p in model.module.parameters())
        hint = "numbers overflow in half precision: wrap network.float()" if half else ""
        raise PluginError(f"{spec.name} returned values that are not finite", hint)
    present = indices != EMPTY
    scores = torch.where(present, scores.gather(1, indices.clamp(min=0)), torch.nan)
    return Attribution(
        values=values.numpy(),
        present=present.numpy(),
        scores=scores.numpy(),
        targets=indices.numpy(),
        method=spec.name,
        options=options_dict(parsed),
        seed=seed,
        score=score,
        labels=model.labels,
        input_size=(x.shape[2], x.shape[3]),
        pictures=_to_pictures(x),
        relu=spec.relu,
        signed=spec.signed,
        extras={name: torch.cat([p.extras[name] for p in pieces]).numpy() for name in pieces[0].extras},
    )


def run_explainer(
    model: Model, explainer: Explainer, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor, size: int
) -> list[Maps]:
    """Run `explainer` on one batch under the guard.

    Parameters
    ----------
    model, explainer
        The model, and what ``build`` of an ExplainerSpec returned.
    x, targets, seeds
        ``(b, C, H, W)``, ``(b, T)`` and ``(b,)`` with b <= `size`.
    size
        The batch is padded to so many pictures with nothing to explain: kernels choose their algorithm by shape, and
        with one fixed shape a map does not depend on how many others there are.

    Returns
    -------
    Maps of the b pictures, float32 on the CPU and 0 where the target is empty, in order; one, or several where memory
    ran out and halves were tried.

    Raises
    ------
    PluginError
        The explainer returned something else than its contract says.
    """

    def run(x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:
        with telling(model), guard(model.module):
            return explainer(model, x, targets, seeds)

    count, T = targets.shape
    filled = torch.cat([targets, targets.new_full((max(0, size - count), T), EMPTY)])
    pieces = halving(run, [pad_batch(x.to(model.device), size), filled.to(model.device), pad_batch(seeds, size)])
    checked = []
    for piece in pieces:
        values = piece.values.detach().to("cpu", torch.float32)
        wanted = targets[: values.shape[0]].cpu()
        if values.ndim != 4 or values.shape[1] != T:
            raise PluginError(f"an explainer returned maps of shape {tuple(values.shape)}, not (B, {T}, h, w)")
        values = torch.where((wanted != EMPTY)[..., None, None], values[: len(wanted)], 0.0)
        extras = {name: extra.detach().cpu()[: len(wanted)] for name, extra in piece.extras.items()}
        checked.append(Maps(values, extras))
        targets = targets[len(wanted) :]
    if len(targets):
        raise PluginError(f"an explainer returned maps of {count - len(targets)} pictures, not of {count}")
    return [piece for piece in checked if len(piece.values)]


def _check_pictures(model: Model, x: torch.Tensor) -> torch.Tensor:
    channels = model.input.channels
    if x.ndim != 4 or x.shape[1] != channels or x.shape[0] == 0:
        raise UsageError(
            f"{model.name} takes prepared pictures of shape (B, {channels}, H, W), not {tuple(x.shape)}",
            "model.prepare makes them from grey pictures (B, H, W) in [0, 1]",
        )
    if not bool(x.isfinite().all()):
        raise UsageError("the pictures hold values that are not finite")
    # A clone leaves inference mode: gradients cannot be recorded on tensors that were made in it.
    with torch.inference_mode(mode=False):
        return x.detach().clone().to(model.device, torch.float32)


def _to_pictures(x: torch.Tensor) -> FloatArray:
    grey = x.mean(dim=1)
    low, high = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
    return np.asarray(((grey - low) / (high - low).clamp(min=1e-12)).cpu().numpy(), dtype=np.float32)

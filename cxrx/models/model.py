"""The wrapper that gives every classifier the same face: prepared input in, raw float32 logits out."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from cxrx.errors import UsageError
from cxrx.models.layers import CamLayer, find_cam_layer, find_transformer, has_biased_convolutions, has_plain_blocks
from cxrx.results.records import as_key
from cxrx.specs import InputSpec, Score

FEW_CONVOLUTIONS = 4


class Model:
    """A classifier of chest films.

    Parameters
    ----------
    module
        The network; put into eval mode and moved to `device`.
    labels
        One finding per logit.
    input
        What the network expects to see.
    name
        What the user calls it.
    output
        ``"logits"``, or ``"probabilities"`` where the network ends in a sigmoid or softmax.
    activation
        ``"sigmoid"``, or ``"softmax"``. A two-class softmax with one label has one logit, z1 - z0.
    cam_layer
        Dotted name of the layer for CAM methods; None: found when first asked for.
    device
        Torch device name.
    demo
        Trained on synthetic films only.
    thresholds
        Finding to the probability from which it counts as found, as training chose it; 0.5 where there is none.
    threshold_rule
        By which rule it did so, one of :data:`cxrx.metrics.thresholds.RULES`.
    notes
        What the user should know of how the model came to be (guessed labels, random weights).
    source
        What it was loaded from: ``{"name": ..., "weights": ...}``; empty for a network made in memory. Private, since
        it holds paths.

    Attributes
    ----------
    score
        What `forward` returns: None, the logits; else what is explained, see `explaining`.
    """

    score: Score | None = None

    def __init__(
        self,
        module: nn.Module,
        labels: Sequence[str],
        input: InputSpec,  # noqa: A002 - the name of the field in ModelSpec
        *,
        name: str,
        output: Literal["logits", "probabilities"] = "logits",
        activation: Literal["sigmoid", "softmax"] = "sigmoid",
        cam_layer: str | None = None,
        device: str | torch.device = "cpu",
        demo: bool = False,
        thresholds: Mapping[str, float] | None = None,
        threshold_rule: str = "f1-max",
        notes: Sequence[str] = (),
        source: Mapping[str, str] | None = None,
    ) -> None:
        self.device = torch.device(device)
        # Convolutions run up to a third faster with the channels last; transformers have next to none.
        convolutions = sum(isinstance(layer, nn.Conv2d) for layer in module.modules())
        self.memory_format = torch.channels_last if convolutions > FEW_CONVOLUTIONS else torch.contiguous_format
        self.module = module.eval().to(self.device).to(memory_format=self.memory_format)
        self.labels = tuple(labels)
        self.input = input
        self.name = name
        self.output = output
        self.activation = activation
        self.demo = demo
        self.thresholds = dict(thresholds or {})
        self.threshold_rule = threshold_rule
        self.notes = tuple(notes)
        self.source = dict(source or {})
        self._cam_layer_name = cam_layer
        if len(set(self.labels)) != len(self.labels):
            raise UsageError(f"labels must differ from one another: {', '.join(self.labels)}")

    def __repr__(self) -> str:
        return (
            f"<Model {self.slug} {len(self.labels)} labels, {self.input.size[0]}x{self.input.size[1]}, {self.device}>"
        )

    @cached_property
    def weights_sha256(self) -> str:
        """Digest of names, shapes, types and bytes of all parameters and buffers, whatever file they came from."""
        digest = hashlib.sha256()
        for key, value in sorted(self.module.state_dict().items()):
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{key}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def slug(self) -> str:
        """Name in the results file: the model's name and 8 hex digits of its weights."""
        return f"{as_key(self.name)}@{self.weights_sha256[:8]}"

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn grey pictures into the network's input.

        Parameters
        ----------
        pixels
            ``(B, H, W)`` float32 in [0, 1], already of the input size.

        Returns
        -------
        ``(B, C, H, W)`` on the model's device.
        """
        channels = self.input.channels
        mean = torch.tensor(self.input.mean, dtype=torch.float32).expand(channels).view(1, channels, 1, 1)
        std = torch.tensor(self.input.std, dtype=torch.float32).expand(channels).view(1, channels, 1, 1)
        x = pixels.to(self.device)[:, None].expand(-1, channels, -1, -1)
        x = (x - mean.to(self.device)) / std.to(self.device)
        return x.contiguous(memory_format=self.memory_format)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return differentiable raw float32 logits ``(B, K)`` of prepared input ``(B, C, H, W)``."""
        try:
            output: Any = self.module(x)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:  # sys.exit() would end the program as if all were well
            raise UsageError(f"the network raised {type(error).__name__}: {error}") from error
        if not isinstance(output, torch.Tensor) or output.ndim > 2:
            raise UsageError(f"the network must return one (B, K) tensor, not {describe(output)}")
        z: torch.Tensor = output.float().reshape(x.shape[0], -1)
        if self.output == "probabilities":
            # The tails of a float32 sigmoid round to 0 and 1; the clamp keeps their logits finite.
            p = z.clamp(torch.finfo(z.dtype).tiny, 1 - torch.finfo(z.dtype).eps / 2)
            z = p.log() - torch.log1p(-p) if self.activation == "sigmoid" else p.log()
        if self.activation == "softmax" and z.shape[1] == 2 and len(self.labels) == 1:
            z = z.flip(1)  # the second class is the finding
        elif z.shape[1] != len(self.labels):
            raise UsageError(f"the network has {z.shape[1]} outputs, but {len(self.labels)} labels are given")
        return self.scored(z)

    def explaining(self, score: Score) -> Model:
        """Return this model with a `forward` that returns what is explained, for methods and metrics.

        ``"log-odds"``: what the probability of a finding depends on, ``log p / (1 - p)``. Of a sigmoid the logit, of a
        softmax z_k - logsumexp of the other classes; of two classes z1 - z0, whether both are named or one.
        ``"logit"``: the raw output z_k, as other libraries explain it; where one of two classes is named ``(B, 2)``,
        that one first.
        """
        model = copy.copy(self)
        model.score = score
        return model

    def scored(self, z: torch.Tensor) -> torch.Tensor:
        """Return what `score` says of logits, or of what ``explaining("logit")`` returned, of this model."""
        if self.score == "logit" or self.activation == "sigmoid" or z.shape[1] == 1:
            return z
        if self.score == "log-odds" or z.shape[1] > len(self.labels):
            return log_odds(z)[:, : len(self.labels)]
        return z

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return raw float32 logits ``(B, K)`` of prepared input ``(B, C, H, W)``, without a graph."""
        with torch.inference_mode():
            return self.forward(x.to(self.device))

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities ``(B, K)`` that belong to `logits`, or to what else `forward` returns."""
        if self.activation == "softmax" and logits.shape[1] > 1 and self.score != "log-odds":
            return logits.softmax(dim=1)
        return logits.sigmoid()

    def offers(self) -> frozenset[str]:
        """Return what attribution methods may ask of this model.

        ``gradients``; ``cam``: a layer with a spatial output; ``attention``: attention of all tokens to each other;
        ``relevance``: a transformer of plain blocks, whose relevance rules are known; ``convolutions``: convolutions
        or batch norms with biases throughout.
        """
        offered = {"gradients"}
        transformer = find_transformer(self.module)
        if transformer is not None and any(hasattr(module, "attn_drop") for module in transformer.modules()):
            offered.add("attention")
            if has_plain_blocks(transformer):
                offered.add("relevance")
        if has_biased_convolutions(self.module):
            offered.add("convolutions")
        try:
            self.cam_layer()
        except UsageError:
            return frozenset(offered)
        return frozenset(offered | {"cam"})

    def cam_layer(self, name: str | None = None) -> CamLayer:
        """Return the layer called `name` (dotted), by default the one that CAM methods read in this model.

        Raises
        ------
        UsageError
            There is no such layer, or none with a spatial output.
        """
        found = find_cam_layer(self.module, name or self._cam_layer_name, (self.input.channels, *self.input.size))
        if name is None:
            self._cam_layer_name = found.name  # finding it may take a forward pass
        return found


def log_odds(z: torch.Tensor) -> torch.Tensor:
    """Return z_k - logsumexp of the others, ``(B, K)``, of the logits of a softmax over at least two classes."""
    if z.shape[1] == 2:
        return z - z.flip(1)  # exactly
    # log of the others' sum is lse + log(1 - p_k); where p_k is near 1, which only the highest can be, it is summed
    highest = z.argmax(dim=1, keepdim=True)
    below = z.scatter(1, highest, -torch.inf).logsumexp(dim=1, keepdim=True)
    p = z.softmax(dim=1).scatter(1, highest, 0.0)
    others = z.logsumexp(dim=1, keepdim=True) + torch.log1p(-p)
    return z - others.scatter(1, highest, below)


def describe(value: Any) -> str:
    """Return in words what a network returned."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__

"""The wrapper that gives every classifier the same face: prepared input in, raw float32 logits out."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from cxrx.errors import INTERRUPTS, CxrxError, UsageError
from cxrx.models.layers import (
    CamLayer,
    find_cam_layer,
    find_transformer,
    has_attention,
    has_biased_convolutions,
    has_plain_blocks,
)
from cxrx.results.records import as_key
from cxrx.specs import InputSpec, Score

FEW_CONVOLUTIONS = 4
_LONGEST = 200
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


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
    dtype
        What the network takes its pictures in; those of half precision are given theirs.

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
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = torch.device(device)
        # Convolutions run up to a third faster with the channels last; transformers have next to none.
        convolutions = sum(isinstance(layer, nn.Conv2d) for layer in module.modules())
        self.memory_format = torch.channels_last if convolutions > FEW_CONVOLUTIONS else torch.contiguous_format
        leave_inference_mode(module)
        self.module = module.eval().to(self.device).to(memory_format=self.memory_format)
        self.dtype = dtype
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
        # finding one, or that there is none, takes a forward pass
        self._cam_layers: dict[str | None, CamLayer | UsageError] = {}
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
        state = dict(self.module.state_dict())
        for name, part in self.module.named_modules():
            if isinstance(part, torch.jit.ScriptModule) and not part.state_dict():
                state.update(_frozen_constants(name, part))
        for key, value in sorted(state.items()):
            for name, tensor in _tensors(key, value):
                digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
                digest.update(tensor.flatten().view(torch.uint8).numpy().data)
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
        output = self._outputs(x)
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

    def _outputs(self, x: torch.Tensor) -> Any:
        """Return what the network returns."""
        try:
            return self.module(x.to(self.dtype))
        except (CxrxError, torch.cuda.OutOfMemoryError):
            raise
        except _FAULTS as error:  # not exceptions of a user's own, by which their hooks may end a pass
            raise UsageError(f"{self.name} cannot run on an input of {tuple(x.shape)}: {in_words(error)}") from error
        except (Exception, *INTERRUPTS):
            raise
        except BaseException as error:  # sys.exit() would end the program as if all were well
            raise UsageError(f"the network raised {type(error).__name__}: {error}") from error

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return raw float32 logits ``(B, K)`` of prepared input ``(B, C, H, W)``, without a graph."""
        # Not in inference mode: what a network keeps from its first pass could not be part of a graph later.
        with torch.inference_mode(mode=False), torch.no_grad():
            x = x.to(self.device)
            return self.forward(x.clone() if x.is_inference() else x)

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
        if transformer is not None and has_attention(transformer):
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
        wanted = name or self._cam_layer_name
        if wanted not in self._cam_layers:
            shape = (self.input.channels, *self.input.size)
            try:
                self._cam_layers[wanted] = find_cam_layer(self.module, wanted, shape, self.dtype)
            except UsageError as error:
                self._cam_layers[wanted] = UsageError(str(error), error.hint)  # without the frames of its traceback
        found = self._cam_layers[wanted]
        if isinstance(found, UsageError):
            raise UsageError(str(found), found.hint)
        return found


def _tensors(key: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the plain CPU tensors that an entry of a state dict is made of; quantised layers keep theirs packed."""
    if hasattr(value, "__tensor_flatten__"):  # a tensor made of others
        for part in value.__tensor_flatten__()[0]:
            yield from _tensors(f"{key}.{part}", getattr(value, part))
    elif isinstance(value, torch.Tensor) and value.is_quantized:
        yield key, value.int_repr().cpu().contiguous()
        axes = value.qscheme() in {torch.per_channel_affine, torch.per_channel_affine_float_qparams}
        scales = (value.q_per_channel_scales(), value.q_per_channel_zero_points()) if axes else ()
        for scale in scales or (torch.tensor(value.q_scale()), torch.tensor(value.q_zero_point())):
            yield f"{key}.scale", scale.cpu().contiguous()
    elif isinstance(value, torch.Tensor):
        dense = value.detach() if value.layout is torch.strided else value.detach().to_dense()
        yield key, dense.cpu().contiguous()
    elif isinstance(value, tuple | list):
        for i, part in enumerate(value):
            yield from _tensors(f"{key}.{i}", part)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _tensors(f"{key}.{name}", part)
    elif isinstance(value, bytes | str | int | float | torch.dtype | None):
        yield key, torch.frombuffer(bytearray(repr(value).encode()), dtype=torch.uint8)
    elif hasattr(value, "__getstate__"):
        yield from _tensors(key, value.__getstate__())


def _frozen_constants(name: str, module: torch.jit.ScriptModule) -> dict[str, Any]:
    """Return the tensors that freezing made constants of the code of `module`, which has no state of its own then."""
    graph: Any = module.inlined_graph  # its nodes live as long as it does
    constants = [node for node in graph.findAllNodes("prim::Constant") if node.hasAttribute("value")]
    return {f"{name}.constant{i}": node.t("value") for i, node in enumerate(constants) if node.kindOf("value") == "t"}


def leave_inference_mode(module: nn.Module) -> None:
    """Copy what a network keeps from a pass in inference mode: gradients cannot be recorded on such tensors."""
    copies: dict[torch.Tensor, torch.Tensor] = {}  # a tensor of two modules stays one
    with torch.inference_mode(mode=False):
        for part in module.modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue
            for table in (vars(part), vars(part)["_buffers"], vars(part)["_parameters"]):
                for name, value in list(table.items()):
                    if isinstance(value, torch.Tensor) and value.is_inference():
                        if value not in copies:
                            own = value.clone()
                            trained = isinstance(value, nn.Parameter)
                            copies[value] = nn.Parameter(own, value.requires_grad) if trained else own
                        table[name] = copies[value]


def in_words(error: Exception) -> str:
    """Return type and text of an exception of somebody else's code in one line."""
    lines = str(error).split("\n")
    text = lines[-1] if isinstance(error, torch.jit.Error) else " ".join(" ".join(lines).split())
    return f"{type(error).__name__}: {text[:_LONGEST]}"


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

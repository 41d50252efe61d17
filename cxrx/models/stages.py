"""Cut a network into stages, from its output back to its input, so that it can be randomised step by step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn

from cxrx.models.layers import watchable, watched

FEW, MANY = 6, 12
"""Containers are opened until there are so many stages, and neighbours joined until there are no more than that."""

_HALF = 0.5
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_POOLS = (nn.AvgPool2d, nn.MaxPool2d)


@dataclass(frozen=True)
class Stage:
    """Layers that are randomised together.

    Attributes
    ----------
    name
        Dotted name of the module, ``features.denseblock4``, or of the first and the last one, ``blocks.10-11``.
    layers
        Dotted names of the modules that own the parameters (and running statistics); empty for the network itself.
    parameters
        Dotted names of the parameters, each in one stage only; a shared one counts where it is met first.
    """

    name: str
    layers: tuple[str, ...]
    parameters: tuple[str, ...]


def stages(network: nn.Module, x: torch.Tensor | None = None) -> list[Stage]:
    """Return stages that hold every parameter of `network` once, the one nearest to the output first.

    The network's children are its stages. While there are fewer than six, the largest is replaced by its own children
    if it is a plain container or holds more than half of all parameters. Layers with vectors only (normalisation) join
    the layer before them. Where more than twelve are left, the longest row of siblings is cut at its pooling layers,
    if it has some, else into pieces of equal length. Raw parameters of an opened module (``cls_token``, ``pos_embed``,
    registers) belong to the first of its children, the embedding.

    Parameters
    ----------
    network
        In eval mode.
    x
        ``(1, C, H, W)``, for one forward pass that tells in which order the modules run; without it they are taken
        to run in the order in which they were registered.
    """
    owned: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    for name, _ in network.named_buffers():
        if name.endswith("running_mean"):
            owned.setdefault(name.rpartition(".")[0], [])
    heavy = {layer for layer, names in owned.items() if any(network.get_parameter(name).ndim > 1 for name in names)}
    pieces = _join_vectors(_open(network, list(owned), heavy, _first_calls(network, x)), heavy)
    pieces = _join_siblings(pieces, network)
    return [
        Stage(name or type(network).__name__, tuple(layers), tuple(p for layer in layers for p in owned[layer]))
        for name, layers in reversed(pieces)
    ]


_Piece = tuple[str, list[str]]
"""A stage in the making: its name and the modules that own its parameters."""


def _open(network: nn.Module, layers: list[str], heavy: set[str], calls: dict[str, int]) -> list[_Piece]:
    """Replace the largest pieces by their children until enough hold some of the `heavy` layers."""
    pieces: list[_Piece] = [("", layers)]
    sizes = {layer: sum(p.numel() for p in network.get_submodule(layer).parameters(recurse=False)) for layer in layers}
    total = sum(sizes.values())

    def size(piece: _Piece) -> int:
        return sum(sizes[layer] for layer in piece[1])

    while sum(not heavy.isdisjoint(piece[1]) for piece in pieces) < FEW:
        children = {}
        for piece in pieces:
            module = network.get_submodule(piece[0])
            if piece[0] == "" or isinstance(module, _CONTAINERS) or size(piece) > _HALF * total:
                children[piece[0]] = _children(module, piece, calls)
        candidates = [piece for piece in pieces if children.get(piece[0])]
        if not candidates:
            break
        largest = max(candidates, key=size)
        place = pieces.index(largest)
        pieces[place : place + 1] = children[largest[0]]
    return pieces


def _children(module: nn.Module, piece: _Piece, calls: dict[str, int]) -> list[_Piece]:
    """Return the pieces that `piece` falls into, in the order in which they run; none where it has no children."""
    name, layers = piece
    found: list[tuple[int, _Piece]] = []
    for child, _ in module.named_children():
        full = f"{name}.{child}" if name else child
        inside = [layer for layer in layers if layer == full or layer.startswith(f"{full}.")]
        ran = [index for called, index in calls.items() if called == full or called.startswith(f"{full}.")]
        # what is never called itself (its parent reads its weights) stays beside its neighbour
        place = min(ran) if ran else found[-1][0] if found else -1
        if inside:
            found.append((place, (full, inside)))
    ordered = [entry for _, entry in sorted(found, key=lambda entry: entry[0])]
    if ordered:
        known = {layer for _, inside in ordered for layer in inside}
        ordered[0] = (ordered[0][0], [layer for layer in layers if layer not in known] + ordered[0][1])
    return ordered


def _first_calls(network: nn.Module, x: torch.Tensor | None) -> dict[str, int]:
    """Return when each module is first called, by name; empty without `x`."""
    calls: dict[str, int] = {}
    if x is None:
        return calls

    def note(name: str, *_: Any) -> None:
        calls.setdefault(name, len(calls))

    with watched(watchable(network), note, before=True), torch.inference_mode(mode=False), torch.no_grad():
        network(x.clone())  # a network may begin with an in-place operation
    return calls


def _join_vectors(pieces: list[_Piece], heavy: set[str]) -> list[_Piece]:
    """Join pieces without a matrix or a kernel to the piece before them, at the input to the one after."""
    joined: list[_Piece] = []
    waiting: list[str] = []
    for name, layers in pieces:
        if not heavy.isdisjoint(layers):
            joined.append((name, waiting + layers))
            waiting = []
        elif joined:
            joined[-1] = (joined[-1][0], joined[-1][1] + layers)
        else:
            waiting = waiting + layers
    return joined or pieces


def _join_siblings(pieces: list[_Piece], network: nn.Module) -> list[_Piece]:
    """Join children of one module until there are few enough pieces."""
    while len(pieces) > MANY:
        rows = [list(row) for _, row in groupby(pieces, key=lambda piece: piece[0].rpartition(".")[0])]
        longest = max(rows, key=len)
        if len(longest) == 1:
            break
        allowed = max(1, MANY - (len(pieces) - len(longest)))
        parent = longest[0][0].rpartition(".")[0]
        groups = _between_pools(longest, network.get_submodule(parent))
        if not 1 < len(groups) <= allowed:
            length = -(-len(longest) // allowed)
            groups = [longest[start : start + length] for start in range(0, len(longest), length)]
        pieces = [piece for row in rows for piece in ([_join(group) for group in groups] if row is longest else row)]
    return pieces


def _between_pools(row: list[_Piece], parent: nn.Module) -> list[list[_Piece]]:
    """Cut a row of siblings where their parent pools."""
    pools_before, count = {}, 0
    for child, module in parent.named_children():
        pools_before[child] = count
        count += isinstance(module, _POOLS)
    groups = groupby(row, key=lambda piece: pools_before.get(piece[0].rpartition(".")[2], 0))
    return [list(group) for _, group in groups]


def _join(group: list[_Piece]) -> _Piece:
    first, last = group[0][0], group[-1][0].rpartition(".")[2]
    name = first if len(group) == 1 else f"{first}-{last.rpartition('-')[2]}"
    return name, [layer for _, layers in group for layer in layers]

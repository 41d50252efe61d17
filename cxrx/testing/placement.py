"""Whether a map lies where the network looks, for the finding that was asked for, and has the right sign.

Tried on networks that are known to read coloured squares and on pictures of such squares. The places of the squares are
apart from their own mirror images, so that a map that was flipped, turned, transposed or shifted peaks elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cxrx.specs import ExplainerSpec
from cxrx.testing.networks import BRIGHT, CELL, GRID, SQUARE_LABELS
from cxrx.testing.outcome import require
from cxrx.testing.trial import Trial

if TYPE_CHECKING:
    import torch

    from cxrx.models.model import Model

Cell = tuple[int, int]

RED, GREEN, BLUE = range(3)
_PICTURES: tuple[dict[int, Cell], ...] = (
    {RED: (1, 4), BLUE: (4, 3)},
    {GREEN: (2, 1), BLUE: (4, 3)},
    {RED: (4, 5), GREEN: (2, 1), BLUE: (5, 3)},
)
"""Colour to the cell (row, column) of its square; blue ones are there to mislead what looks at the picture alone."""

_TARGETS = ((RED, -1), (GREEN, -1), (RED, GREEN))
_ROUNDING = 1e-3  # of the square's area
_WIDEST = 0.25
"""Of the picture: what stands out in a larger part of it points nowhere."""


class SquareTrial(Trial):
    """A trial on pictures of squares: one square that counts in the first two, two in the last."""

    def __init__(self, spec: ExplainerSpec, model: Model, options: Any) -> None:
        import torch

        super().__init__(spec, model, options)
        self.x = torch.zeros(len(_PICTURES), 3, GRID * CELL, GRID * CELL)
        for picture, squares in zip(self.x, _PICTURES, strict=True):
            for colour, (row, column) in squares.items():
                picture[colour].unfold(0, CELL, CELL).unfold(1, CELL, CELL)[row, column] = BRIGHT
        self.targets = torch.tensor(_TARGETS)

    def shown(self, film: int, column: int) -> torch.Tensor:
        """Return a map ``(h, w)`` as it is looked at: its published form, else how strong its values are."""
        values = self.values[film, column].double()
        return values.clamp(min=0) if self.spec.relu else values.abs()


def _place(trial: SquareTrial) -> str | None:
    """Check that maps peak at the square that the network reads."""
    if trial.spec.control:
        return "not tried: a control never looks at the model"
    for film, colour in ((0, RED), (1, GREEN)):
        shown = trial.shown(film, 0)
        peak = (shown - shown.median()).clamp(min=0)
        stands_out = peak > peak.max() / 2
        share = float(stands_out.double().mean())
        require(share > 0, "a map is flat where the network reads one small square")
        require(share <= _WIDEST, f"{share:.0%} of a map stand out where the network reads one small square")
        found, size = _centre((peak - peak.max() / 2).clamp(min=0)), shown.shape
        expected = tuple((cell + 0.5) / GRID for cell in _PICTURES[film][colour])
        # Half a cell of the map's own grid. A map in which more than the square stands out is known less exactly.
        sharp = not trial.spec.stochastic and abs(share * GRID**2 - 1) < _ROUNDING
        slack = 0 if sharp else 0.25 / GRID + max(0, share**0.5 - 1 / GRID) / 4
        allowed = tuple(max(0.5 / side, slack) for side in size)
        require(
            _near(found, expected, allowed),
            f"a map peaks at {_percent(found)} of the picture, the network reads {_percent(expected)}"
            f"{_guess(found, expected, allowed)}",
        )
    return None


def _centre(weight: torch.Tensor) -> tuple[float, float]:
    """Return the centroid (down, across) of weights ``(h, w)``, as fractions of the picture."""
    import torch

    total = weight.sum()
    down, across = ((torch.arange(side, dtype=weight.dtype) + 0.5) / side for side in weight.shape)
    return float(weight.sum(dim=1) @ down / total), float(weight.sum(dim=0) @ across / total)


_MIRRORED: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "upside down": lambda down, across: (1 - down, across),
    "mirrored left to right": lambda down, across: (down, 1 - across),
    "turned by half": lambda down, across: (1 - down, 1 - across),
    "transposed": lambda down, across: (across, down),
    "turned by a quarter": lambda down, across: (across, 1 - down),
    "turned back by a quarter": lambda down, across: (1 - across, down),
    "transposed along the other diagonal": lambda down, across: (1 - across, 1 - down),
}


def _guess(found: tuple[float, ...], expected: tuple[float, ...], allowed: tuple[float, ...]) -> str:
    for name, mirror in _MIRRORED.items():
        if _near(found, mirror(*expected), allowed):
            return f": it seems to be {name}"
    return ""


def _near(found: tuple[float, ...], expected: tuple[float, ...], allowed: tuple[float, ...]) -> bool:
    return all(abs(a - b) < limit for a, b, limit in zip(found, expected, allowed, strict=True))


def _percent(place: tuple[float, ...]) -> str:
    return f"({place[0]:.0%} down, {place[1]:.0%} across)"


def _finding(trial: SquareTrial) -> str | None:
    """Check that of two squares each finding's map shows its own, unless the method gives one map for all findings."""
    import torch
    from torch.nn import functional

    if trial.spec.control:
        return "not tried: a control never looks at the model"
    red, green = trial.shown(2, 0), trial.shown(2, 1)
    if not trial.spec.per_finding:
        require(torch.equal(red, green), "the spec says per_finding=False, but two findings have different maps")
        return "one map for all findings"
    hint = "use `targets`, or say per_finding=False if the method knows no findings"
    require(not torch.equal(red, green), f"two findings have the same map: {hint}")
    for shown, own, other in ((red, RED, GREEN), (green, GREEN, RED)):
        cells = functional.adaptive_avg_pool2d(shown[None], GRID)[0]  # (7, 7)
        require(
            cells[_PICTURES[2][own]] > cells[_PICTURES[2][other]],
            f"the map of {SQUARE_LABELS[own]} shows what the network reads for {SQUARE_LABELS[other]}: {hint}",
        )
    return None


def _sign(trial: SquareTrial) -> str | None:
    """Check that evidence for a finding is positive in maps with a sign."""
    from torch.nn import functional

    if trial.spec.control or not trial.spec.signed:
        return "not tried: its maps have no sign"
    for film, colour in ((0, RED), (1, GREEN)):
        cells = functional.adaptive_avg_pool2d(trial.values[film, :1], GRID)[0]  # (7, 7)
        require(
            cells[_PICTURES[film][colour]] > 0,
            "the square that raises the logit has a negative value: evidence for a finding is positive",
        )
    return None


PLACEMENT: dict[str, Callable[[SquareTrial], str | None]] = {"place": _place, "finding": _finding, "sign": _sign}
"""Checks by name, run on a network that reads squares."""

"""Extremal perturbations (Fong, Patrick and Vedaldi, ICCV 2019), many at once.

A row is one picture, one finding and one area. All rows are optimised side by side and never touch each other: the
model is in eval mode, their energies are summed, and every constant is a row's own. With m the mask of a row's
parameters p, and r 1 for as many pixels as the area allows and else 0,

    maximise  reward(m) - λ · mean((sort(m) - r)²),   λ = 300 · 1.0035^t,   t = 0 ... 799,

by gradient ascent on p in [0, 1], from p = 1, with learning rate 0.01, momentum 0.9 and dampening 0.9. That is the
published path. Four things may depart from it:

Reuse. The gradient of the reward with respect to the mask changes little from step to step, and momentum averages it
over ten of them anyway. So the model is evaluated at every n-th step only. The mask and its area, which cost little,
are followed exactly.
Strides. 800/steps of the path are taken in one step: learning rate, growth of λ and position t are scaled alike.
Stop. Most of the path's second half raises λ over a mask that hardly moves any more. A row that has settled walks it
four times as fast, and is finished when λ has reached its end.
Area. The loss sees the mask on a canvas that is wider than the picture, so that cells at the edge weigh as much as
others; published areas are fractions of that canvas, and a mask inside the picture fills a third more of it than was
asked for. Masks also have soft edges and grow by whole cells. Where the area is to be that of the visible picture,
the number of ones in r is that area's, and is corrected once the row has settled, in proportion to the error, and more
as λ grows and the mask follows faster.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cxrx.errors import UsageError
from cxrx.explainers.extremal_mask import MaskGenerator, area_penalty
from cxrx.explainers.extremal_pyramid import BlurPyramid, Fade
from cxrx.explainers.filters import gaussian_blur
from cxrx.explainers.gradient import differentiate, rows_at_once, with_graph
from cxrx.explainers.steps import looping
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import autocast
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from cxrx.explainers.option_types import ExtremalOptions
    from cxrx.models.model import Model

# Published constants.
PATH = 800
LEARNING_RATE = 0.01
MOMENTUM = 0.9  # and dampening
AREA_WEIGHT = 300.0
GROWTH = 1.0035
# Our own.
SETTLED = 2e-4
"""Mean change of the parameters per step of the path, below which a row has settled."""
PACE = 4.0
"""How much faster a settled row walks on."""
CORRECTION = 0.003
"""Share of the area's error by which the number of ones is corrected, per step of the path, in its middle."""
MIDDLE = 500
"""Place on the path where rows settle."""
NEAR = 1.5
"""The mask's mean, in areas asked for, from which on a row may settle."""
CLOSE = 0.015
"""Relative error of a corrected area with which a row may finish early."""
BOUNDS = (0.7, 1.3)
"""Of the corrected number of ones, in areas asked for."""
LOOK_EVERY = 8
"""Steps between looks at which rows are finished, at least; each look waits for the device."""
ROWS_ON_CPU = 4
"""Rows in every pass on a CPU: a row costs a quarter less than in passes of two, and a fifth more than in passes of
eight, of which more would stay idle."""


@dataclass(frozen=True)
class Row:
    """One mask to find: of which picture, which column of the targets, which logit, which of the areas."""

    picture: int
    column: int
    target: int
    slot: int
    area: float


@dataclass(frozen=True)
class Found:
    """A finished mask: ``(H, W)`` on the picture, its reward, its area penalty (without λ), and its cost."""

    mask: torch.Tensor
    reward: torch.Tensor
    penalty: torch.Tensor
    steps: int
    evaluations: int


def build_extremal(options: ExtremalOptions) -> Explainer:
    """Return extremal perturbations.

    The map is the sum of the masks over areas, smoothed. Extras, by area: ``masks`` ``(B, T, A, H, W)``,
    ``achieved_area`` (the mask's mean over the picture), ``reward``, ``penalty``, ``steps`` and ``evaluations`` of the
    model ``(B, T, A)``.
    """

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        size = (x.shape[2], x.shape[3])
        shape = (*targets.shape, len(options.areas))
        masks = torch.zeros(*shape, *size)
        extras = {name: torch.zeros(shape) for name in ("achieved_area", "reward", "penalty", "steps", "evaluations")}
        rows = [
            Row(b, t, target, a, area)
            for b, wanted in enumerate(targets.tolist())
            for t, target in enumerate(wanted)
            if target != EMPTY
            for a, area in enumerate(options.areas)
        ]
        for row, found in optimise(model, x, rows, options):
            place = (row.picture, row.column, row.slot)
            masks[place] = found.mask
            extras["achieved_area"][place] = found.mask.mean()
            extras["reward"][place] = found.reward
            extras["penalty"][place] = found.penalty
            extras["steps"][place] = found.steps
            extras["evaluations"][place] = found.evaluations
        values = gaussian_blur(masks.sum(dim=2), options.smooth * min(size))
        return Maps(values, {"masks": masks, **extras})

    return explain


def optimise(
    model: Model, x: torch.Tensor, rows: list[Row], options: ExtremalOptions, at_once: int | None = None
) -> Iterator[tuple[Row, Found]]:
    """Yield every row with its mask, in the order in which they finish.

    Parameters
    ----------
    model
        In eval mode, its parameters frozen.
    x
        ``(B, C, H, W)``.
    rows, options
        What to find, and of the method.
    at_once
        Rows that share a forward pass; default: by device. It changes no mask but for rounding.

    Notes
    -----
    Over hundreds of steps a difference in the last bit grows into another mask, and kernels choose their algorithm by
    shape. So every pass has the same number of rows, idle ones among them where too few are left, and a mask is the
    same to the last bit whatever is optimised beside it.
    """
    if not rows:
        return
    queue = deque(rows)
    places = at_once or (ROWS_ON_CPU if x.device.type == "cpu" else rows_at_once(x.device))
    active = Active(Problem(model, x, options), x, places)
    with looping(len(rows)) as loop:
        while queue or active.rows:
            # New rows join only then, so that all rows are looked at after the same numbers of their own steps.
            if not active.rows or active.looks():
                active.fill(queue)
            yield from active.step()
            # those in hand by their steps: they may end sooner
            loop.done = len(rows) - len(queue) - len(active.rows) + sum(active.steps) / options.steps


class Problem:
    """What is maximised, for any rows.

    Parameters
    ----------
    x
        ``(B, C, H, W)``, the pictures that rows refer to.
    """

    def __init__(self, model: Model, x: torch.Tensor, options: ExtremalOptions) -> None:
        if options.reward == "contrastive" and len(model.labels) < 2:
            raise UsageError("the contrastive reward needs a model with at least two findings")
        # published: z_c minus the highest other logit
        self.model = model.explaining("logit") if options.reward == "contrastive" else model
        self.options = options
        self.generator = MaskGenerator((x.shape[2], x.shape[3]))
        self.kernels = self.generator.kernels(x.dtype, x.device)
        self.perturb: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = (
            BlurPyramid(x) if options.perturbation == "blur" else Fade(x)
        )

    def reward(self, mask: torch.Tensor, rows: list[Row], mirrored: torch.Tensor) -> torch.Tensor:
        """Return the rewards ``(R,)`` of masks ``(R, H, W)``; `mirrored` ``(R,)`` bool says which to show mirrored."""
        variants = {"preserve": [mask], "delete": [1 - mask], "dual": [mask, 1 - mask]}
        kept = variants[self.options.variant]
        picture = torch.tensor([row.picture for row in rows], device=mask.device)
        seen = torch.cat([self.perturb(part, picture) for part in kept])  # (R or 2R, C, H, W)
        if self.options.flip:
            seen = torch.where(mirrored.repeat(len(kept)).view(-1, 1, 1, 1), seen.flip(3), seen)
        with autocast(mask.device, self.options.dtype):  # mask, area and descent stay float32
            logits = self.model.forward(seen)
        score = self.score(logits, rows * len(kept))
        if self.options.variant == "dual":
            preserved, deleted = score.chunk(2)
            return preserved - deleted
        return score if self.options.variant == "preserve" else -score

    def score(self, logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
        """Return the score ``(R,)`` of each row's finding from logits ``(R, K)``."""
        target = torch.tensor([row.target for row in rows], device=logits.device)[:, None]
        own = logits.gather(1, target)[:, 0]
        if self.options.reward == "simple":
            return own
        return own - logits.scatter(1, target, -torch.inf).amax(dim=1)


class Active:
    """The rows that are being optimised, and their state: one place in every tensor for each.

    Attributes
    ----------
    steps
        Of each row so far.
    parameters, velocity
        ``(R, h, w)``.
    gradient
        ``(R, H, W)``, the last one of each row's reward with respect to its mask.
    position
        ``(R,)``, on the path of 800.
    ones
        ``(R,)``, how many r has.
    """

    def __init__(self, problem: Problem, x: torch.Tensor, places: int) -> None:
        self.problem = problem
        self.places = places
        self.stride = PATH / problem.options.steps
        self.every = problem.options.every
        self.canvas = problem.generator.canvas[0] * problem.generator.canvas[1]
        # What an area is a fraction of.
        self.whole = x.shape[2] * x.shape[3] if problem.options.area_on == "visible" else self.canvas
        self.rows: list[Row] = []
        self.steps: list[int] = []
        self.arrived: list[bool] = []
        self.parameters = x.new_empty(0, *problem.generator.grid)
        self.velocity = self.parameters.clone()
        self.gradient = x.new_empty(0, *x.shape[2:])
        self.position = x.new_empty(0)
        self.ones = x.new_empty(0)
        self.clock = 0

    def looks(self) -> bool:
        """Tell whether at this step rows may join or be found to have arrived; the model is evaluated at it too."""
        return self.clock % (self.every * math.ceil(LOOK_EVERY / self.every)) == 0

    def fill(self, queue: deque[Row]) -> None:
        """Give free places to the next rows of `queue`."""
        if not self.rows:
            self.clock = 0
        new = [queue.popleft() for _ in range(min(self.places - len(self.rows), len(queue)))]
        self.rows += new
        self.steps += [0] * len(new)
        self.arrived += [False] * len(new)
        grid = (len(new), *self.problem.generator.grid)
        self.parameters = torch.cat([self.parameters, self.parameters.new_ones(grid)])
        self.velocity = torch.cat([self.velocity, self.velocity.new_zeros(grid)])
        self.gradient = torch.cat([self.gradient, self.gradient.new_zeros(len(new), *self.gradient.shape[1:])])
        self.position = torch.cat([self.position, self.position.new_zeros(len(new))])
        count = [self.whole - int(self.whole * (1 - row.area)) for row in new]
        self.ones = torch.cat([self.ones, self.ones.new_tensor(count)])

    def step(self) -> list[tuple[Row, Found]]:
        """Evaluate all rows, take the finished ones out, and move the others by one step."""
        R = len(self.rows)
        parameters = self.parameters.requires_grad_()
        filled = torch.cat([parameters, parameters.detach()[:1].expand(self.places - R, -1, -1)])  # (places, h, w)
        canvas = self.problem.generator(filled, self.problem.kernels)
        visible = self.problem.generator.visible(canvas)
        penalty = area_penalty(canvas[:R].flatten(1), *self._rounded_ones())
        mask = visible[:R].detach()
        last = self.problem.options.steps - 1
        done = [i for i, t in enumerate(self.steps) if t == last or self.arrived[i]]
        found = []
        if done or self.clock % self.every == 0:
            reward = self._evaluate(visible.detach())
            found = [
                (self.rows[i], Found(mask[i], reward[i], penalty[i].detach(), t + 1, 1 + -(-t // self.every)))
                for i, t in enumerate(self.steps)
                if i in done
            ]
        loss = (AREA_WEIGHT * GROWTH**self.position * penalty).sum() - (self.gradient * visible[:R]).sum()
        self._move(differentiate(loss, parameters), mask)
        if done:
            self._retain([i for i in range(R) if i not in done])
        return found

    def _evaluate(self, visible: torch.Tensor) -> torch.Tensor:
        """Return the rewards ``(R,)`` of all rows, and keep their gradients where it is a row's turn.

        It is no row's turn when one is evaluated out of time because it ends here: a row must not depend on others.
        """
        R = len(self.rows)
        leaf = visible.requires_grad_()
        idle = self.places - R
        turn = torch.tensor([t // self.every % 2 == 0 for t in self.steps], device=leaf.device)
        mirrored = torch.cat([turn, turn[:1].expand(idle)])
        reward = self.problem.reward(leaf, self.rows + self.rows[:1] * idle, mirrored)[:R]
        with_graph(reward)
        if self.clock % self.every == 0:
            self.gradient = differentiate(reward.sum(), leaf)[:R]
        return reward.detach()

    def _rounded_ones(self) -> tuple[torch.Tensor, int]:
        """Return the number of ones of each row ``(R,)``, and what none can be above."""
        most = min(self.canvas, int(BOUNDS[1] * max(row.area for row in self.rows) * self.whole) + 1)
        return self.ones.round().long().clamp(1, most), most

    def _move(self, gradient: torch.Tensor, mask: torch.Tensor) -> None:
        """Take one step of gradient descent, and walk on along the path."""
        damped = MOMENTUM * self.velocity + (1 - MOMENTUM) * gradient
        # As in torch.optim.SGD, the first gradient is not dampened.
        first = torch.tensor([t == 0 for t in self.steps], device=gradient.device)
        self.velocity = torch.where(first.view(-1, 1, 1), gradient, damped)
        before = self.parameters.detach()
        self.parameters = (before - LEARNING_RATE * self.stride * self.velocity).clamp(0, 1)
        self.steps = [t + 1 for t in self.steps]
        self.clock += 1

        area = mask.new_tensor([row.area for row in self.rows])
        excess = mask.mean(dim=(1, 2)) / area - 1
        change = (self.parameters - before).abs().mean(dim=(1, 2)) / self.stride
        settled = (excess < NEAR - 1) & (change < SETTLED)
        walked = torch.full_like(area, self.stride)
        if self.problem.options.stop:
            walked = torch.where(settled, PACE * walked, walked)
        if self.problem.options.area_on == "visible":
            requested = area * self.whole
            gain = CORRECTION * GROWTH ** ((self.position - MIDDLE) / 2)
            corrected = self.ones - torch.where(settled, gain * self.stride * excess * requested, 0.0)
            self.ones = corrected.clamp(BOUNDS[0] * requested, BOUNDS[1] * requested)
        self.position = (self.position + walked).clamp(max=PATH - self.stride)
        if self.problem.options.stop and self.looks():
            held = (excess.abs() < CLOSE) | (self.problem.options.area_on == "padded")
            self.arrived = (held & (self.position >= PATH - self.stride)).tolist()

    def _retain(self, places: list[int]) -> None:
        """Keep only the rows at `places`."""
        self.rows = [self.rows[i] for i in places]
        self.steps = [self.steps[i] for i in places]
        self.arrived = [self.arrived[i] for i in places]
        index = torch.tensor(places, dtype=torch.long, device=self.parameters.device)
        self.parameters, self.velocity = self.parameters[index], self.velocity[index]
        self.gradient, self.position, self.ones = self.gradient[index], self.position[index], self.ones[index]

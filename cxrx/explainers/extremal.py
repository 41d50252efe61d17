"""Extremal perturbations (Fong, Patrick and Vedaldi, ICCV 2019), many at once.

A row is one picture, one finding and one area. All rows are optimised side by side and never touch each other: the
model is in eval mode, their energies are summed, and every constant is a row's own. A row that has converged leaves
its place to the next in the queue. For row i and step t, with m the mask of its parameters p,

    maximise  reward(m) - λ_t · mean((sort(m) - r)²),   λ_t = 300 · 1.0035^t

by gradient ascent on p in [0, 1]: learning rate 0.01, momentum 0.9 and dampening 0.9, from p = 1, 800 steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cxrx.errors import UsageError
from cxrx.explainers.extremal_mask import MaskGenerator, area_penalty
from cxrx.explainers.extremal_pyramid import BlurPyramid, Fade
from cxrx.explainers.filters import gaussian_blur
from cxrx.explainers.gradient import rows_at_once
from cxrx.explainers.targets import EMPTY
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from cxrx.explainers.specs import ExtremalOptions
    from cxrx.models.model import Model

PUBLISHED_STEPS = 800
LEARNING_RATE = 0.01
MOMENTUM = 0.9  # and dampening
AREA_WEIGHT = 300.0
GROWTH = 1.0035
CHECK_EVERY = 5
"""Steps between looks at which rows have converged; each look waits for the device."""
CALM_STEPS = 5
"""Steps in a row that must all be small before a row has converged."""
CALM_CHANGE = 0.004
"""Greatest change of any parameter in a small step, in units of the learning rate's share of 800 steps."""
CALM_AREA = 0.05
"""Relative error of the area below which a row may stop."""


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
    """A finished mask: ``(H, W)`` on the picture, its reward, its area penalty (without λ) and the steps it took."""

    mask: torch.Tensor
    reward: torch.Tensor
    penalty: torch.Tensor
    steps: int


def build_extremal(options: ExtremalOptions) -> Explainer:
    """Return extremal perturbations.

    The map is the sum of the masks over areas, smoothed. Extras, by area: ``masks`` ``(B, T, A, H, W)``,
    ``achieved_area`` (mean of the mask on the picture), ``reward``, ``penalty``, ``steps`` ``(B, T, A)``.
    """

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        size = (x.shape[2], x.shape[3])
        shape = (*targets.shape, len(options.areas))
        masks = torch.zeros(*shape, *size)
        extras = {name: torch.zeros(shape) for name in ("achieved_area", "reward", "penalty", "steps")}
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
        values = gaussian_blur(masks, options.smooth * min(size)).sum(dim=2)
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
    at_once
        Rows that share a forward pass; default: by device. It changes no mask but for rounding.
    """
    problem = Problem(model, x, options)
    queue = deque(rows)
    active = Active(problem, x)
    places = at_once or rows_at_once(x.device)
    while queue or active.rows:
        # Only then, so that all rows count their steps alike and are looked at together.
        if not active.rows or active.clock % CHECK_EVERY == 0:
            active.fill(queue, places)
        yield from active.step()


class Problem:
    """What is maximised, for any rows."""

    def __init__(self, model: Model, x: torch.Tensor, options: ExtremalOptions) -> None:
        if options.reward == "contrastive" and len(model.labels) < 2:
            raise UsageError("the contrastive reward needs a model with at least two findings")
        self.model = model
        self.options = options
        self.generator = MaskGenerator((x.shape[2], x.shape[3]), padded=options.area_on == "padded")
        self.kernels = self.generator.kernels(x.dtype, x.device)
        self.perturb: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = (
            BlurPyramid(x) if options.perturbation == "blur" else Fade(x)
        )
        stride = PUBLISHED_STEPS / options.steps
        self.learning_rate = LEARNING_RATE * stride
        self.growth = GROWTH**stride

    def evaluate(
        self, parameters: torch.Tensor, rows: list[Row], mirrored: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the masks on the picture ``(R, H, W)``, the rewards ``(R,)`` and the area penalties ``(R,)``."""
        mask = self.generator(parameters, self.kernels)
        penalty = area_penalty(mask.flatten(1), tuple(row.area for row in rows))
        visible = self.generator.visible(mask)
        return visible, self.reward(visible, rows, mirrored), penalty

    def reward(self, mask: torch.Tensor, rows: list[Row], mirrored: torch.Tensor) -> torch.Tensor:
        """Return the rewards ``(R,)`` of masks ``(R, H, W)``; `mirrored` ``(R,)`` bool says which to show mirrored."""
        picture = torch.tensor([row.picture for row in rows], device=mask.device)
        kept = [mask] if self.options.variant == "preserve" else [1 - mask]
        if self.options.variant == "dual":
            kept = [mask, 1 - mask]
        seen = torch.cat([self.perturb(part, picture) for part in kept])
        if self.options.flip:
            seen = torch.where(mirrored.repeat(len(kept)).view(-1, 1, 1, 1), seen.flip(3), seen)
        score = self.score(self.model.forward(seen), rows * len(kept))
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
    """The rows that are being optimised, and their state: one place in every tensor for each."""

    def __init__(self, problem: Problem, x: torch.Tensor) -> None:
        self.problem = problem
        self.rows: list[Row] = []
        self.taken: list[int] = []  # steps of each row so far
        self.converged: list[bool] = []
        grid = problem.generator.grid
        self.parameters = x.new_empty(0, *grid)
        self.velocity = x.new_empty(0, *grid)
        self.calm = x.new_empty(0)  # steps in a row that were small
        self.clock = 0

    def fill(self, queue: deque[Row], places: int) -> None:
        """Give free places to the next rows of `queue`."""
        if not self.rows:
            self.clock = 0
        new = [queue.popleft() for _ in range(min(places - len(self.rows), len(queue)))]
        self.rows += new
        self.taken += [0] * len(new)
        self.converged += [False] * len(new)
        grid = self.problem.generator.grid
        self.parameters = torch.cat([self.parameters, self.parameters.new_ones(len(new), *grid)])
        self.velocity = torch.cat([self.velocity, self.velocity.new_zeros(len(new), *grid)])
        self.calm = torch.cat([self.calm, self.calm.new_zeros(len(new))])

    def step(self) -> list[tuple[Row, Found]]:
        """Evaluate all rows, take the finished ones out, and move the others by one step."""
        taken = torch.tensor(self.taken, device=self.parameters.device)
        parameters = self.parameters.requires_grad_()
        mask, reward, penalty = self.problem.evaluate(parameters, self.rows, taken % 2 == 0)
        weight = AREA_WEIGHT * self.problem.growth**taken
        loss = (weight * penalty - reward).sum()
        (gradient,) = torch.autograd.grad(loss, parameters)
        last = self.problem.options.steps - 1
        done = [i for i, t in enumerate(self.taken) if t == last or self.converged[i]]
        found = [
            (self.rows[i], Found(mask[i].detach(), reward[i].detach(), penalty[i].detach(), self.taken[i] + 1))
            for i in done
        ]
        self._move(gradient, taken, mask.detach())
        if done:
            self._keep([i for i in range(len(self.rows)) if i not in done])
        return found

    def _move(self, gradient: torch.Tensor, taken: torch.Tensor, mask: torch.Tensor) -> None:
        first = (taken == 0).view(-1, 1, 1)  # as in torch.optim.SGD, the first gradient is not dampened
        damped = MOMENTUM * self.velocity + (1 - MOMENTUM) * gradient
        self.velocity = torch.where(first, gradient, damped)
        before = self.parameters.detach()
        self.parameters = (before - self.problem.learning_rate * self.velocity).clamp(0, 1)
        self.taken = [t + 1 for t in self.taken]
        self.clock += 1
        if not self.problem.options.stop:
            return
        change = (self.parameters - before).abs().amax(dim=(1, 2)) * LEARNING_RATE / self.problem.learning_rate
        area = torch.tensor([row.area for row in self.rows], device=mask.device)
        error = (mask.mean(dim=(1, 2)) - area).abs() / area
        small = (change < CALM_CHANGE) & (error < CALM_AREA)
        self.calm = torch.where(small, self.calm + 1, 0.0)
        if self.clock % CHECK_EVERY == 0:
            self.converged = (self.calm >= CALM_STEPS).tolist()

    def _keep(self, places: list[int]) -> None:
        self.rows = [self.rows[i] for i in places]
        self.taken = [self.taken[i] for i in places]
        self.converged = [self.converged[i] for i in places]
        index = torch.tensor(places, dtype=torch.long, device=self.parameters.device)
        self.parameters, self.velocity, self.calm = self.parameters[index], self.velocity[index], self.calm[index]

"""Methods that run through captum: GradientSHAP, DeepLIFT, LIME and KernelSHAP.

captum takes one finding at a time, and draws from the global generators of torch and NumPy. Here every picture is
explained alone, between a seeding from its own seed and the return of the global states, so that its map depends on
nothing else and its noise is the same for all findings. What is drawn is drawn on the CPU, whatever the device.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cxrx.errors import UsageError
from cxrx.explainers.baselines import make_baseline
from cxrx.explainers.gradient import noise_scale, rows_at_once, with_graph
from cxrx.explainers.option_types import SmoothGradOptions
from cxrx.explainers.seeds import derive_seed
from cxrx.explainers.steps import told, told_pictures
from cxrx.explainers.targets import EMPTY
from cxrx.models.inference import pad_batch
from cxrx.specs import Explainer, Maps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxrx.explainers.option_types import DeepLiftOptions, GradientShapOptions, LimeOptions, SuperpixelOptions
    from cxrx.models.model import Model


def _requested(targets: torch.Tensor) -> Iterator[tuple[int, int, int]]:
    """Yield (b, t, finding) for everything asked for, picture by picture, and count it."""
    listed = enumerate(targets.tolist())
    asked = [(b, t, finding) for b, row in listed for t, finding in enumerate(row) if finding != EMPTY]
    return told(asked, len(asked))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global CPU generators of torch and NumPy inside the block; afterwards they are as they were."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002 - captum draws from these
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(derive_seed(seed, "numpy") % 2**32)  # noqa: NPY002
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


# ---------------------------------------------------------------------------------------------------------------------
# GradientSHAP

_PATHS = 8
"""Points at once; another number would draw other points, so it is the same on every device."""


def build_gradientshap(options: GradientShapOptions) -> Explainer:
    """Return GradientSHAP (Lundberg and Lee 2017): the mean of (x + ε - b) ∂z/∂x at b + α (x + ε - b).

    For each of n points a baseline b, the place α in [0, 1] and noise ε are drawn; ε is the same in all channels.

    Extras: ``completeness``, the map's sum minus (z(x) - mean of z over the baselines). The points are a sample, so
    something is always left: it falls with n, to 0 where sigma is 0.
    """
    from captum.attr import GradientShap

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:
        every = torch.stack([make_baseline(model, x, kind) for kind in options.baselines])  # (N, B, C, H, W)
        sigma = noise_scale(x, SmoothGradOptions(sigma=options.sigma)).tolist()

        def logits(pictures: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            noisy = (pictures + noise).to(model.device)
            return with_graph(model.forward(noisy.contiguous(memory_format=model.memory_format)))

        values = x.new_zeros(*targets.shape, *x.shape[2:])
        for b, t, finding in _requested(targets):
            with seeded(int(seeds[b])):
                pictures, baselines = x[b : b + 1].cpu(), every[:, b].cpu()
                values[b, t] = _mean_over_paths(
                    GradientShap(logits), pictures, baselines, options.n, target=finding, sigma=sigma[b]
                ).to(values)
        missing = values.sum(dim=(2, 3)) - _change(model, x, list(every), targets)
        return Maps(values, {"completeness": missing * (targets != EMPTY)})

    return explain


def _mean_over_paths(
    method: Any, picture: torch.Tensor, baselines: torch.Tensor, n: int, *, target: int, sigma: float
) -> torch.Tensor:
    """Return the map ``(H, W)`` of one picture ``(1, C, H, W)`` and `baselines` ``(N, C, H, W)``.

    captum would draw noise for every channel apart. So the noise is an input of its own, ``(1, 1, H, W)`` of zeros with
    a baseline of zeros, which the network adds to all channels; the attributions of both add up to those of their sum.
    """
    zeros = picture.new_zeros(1, 1, *picture.shape[2:])
    total = picture.new_zeros(picture.shape[2:])
    for start in range(0, n, _PATHS):
        count = min(_PATHS, n - start)
        parts = method.attribute(
            (picture, zeros), (baselines, zeros), n_samples=count, stdevs=(0.0, sigma), target=target
        )
        total += count / n * sum(part.sum(dim=(0, 1)) for part in parts)
    return total


def _change(model: Model, x: torch.Tensor, baselines: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
    """Return z(x) minus the mean of z over the baselines, ``(B, T)``."""
    with torch.no_grad():
        reference = torch.stack([model.forward(baseline.clone()) for baseline in baselines]).mean(dim=0)
        return (model.forward(x.clone()) - reference).gather(1, targets.clamp(min=0))


# ---------------------------------------------------------------------------------------------------------------------
# DeepLIFT

_RESCALED = (
    nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softmax,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
)  # fmt: skip
"""The modules that captum has a rule for; exactly these, no subclasses."""


def build_deeplift(options: DeepLiftOptions) -> Explainer:
    """Return DeepLIFT (Shrikumar et al. 2017) with the rescale rule: (x - b) times multipliers.

    A multiplier is Δout/Δin where the network calls a module of `_RESCALED`, and the plain gradient everywhere else:
    at functional ReLUs, GELU, layer norm, attention, products, and the logsumexp of three or more classes. On a vision
    transformer little more than (x - b) ∂z/∂x is left of the method.

    Extras: ``completeness``, the map's sum minus (z(x) - z(b)). It is 0 where every nonlinearity has its rule, and
    says how far the map is from DeepLIFT's promise elsewhere.
    """
    from captum.attr import DeepLift

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:  # noqa: ARG001
        baseline = make_baseline(model, x, options.baseline)
        for module in model.module.modules():
            if "inplace" in vars(module):
                # The rules compare what goes into a module with what comes out. The guard puts it back.
                module.inplace = False  # type: ignore[assignment]
        values = x.new_zeros(*targets.shape, *x.shape[2:])
        for b, t, finding in _requested(targets):
            picture = x[b : b + 1].detach().clone().requires_grad_()
            with _pools_apart(model.module), _ready_for_rules(model.module), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Setting forward, backward hooks and attributes", UserWarning)
                # One picture and finding a call: captum's rules for max pooling and softmax mix the rows of a batch.
                part = DeepLift(_Logits(model)).attribute(picture, baseline[b : b + 1], target=finding)
            values[b, t] = part.detach().sum(dim=(0, 1))
        missing = values.sum(dim=(2, 3)) - _change(model, x, [baseline], targets)
        return Maps(values, {"completeness": missing * (targets != EMPTY)})

    return explain


class _Logits(nn.Module):
    """The model as a module, which DeepLIFT hooks: prepared pictures to logits."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.module
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return with_graph(self.model.forward(x))


@contextmanager
def _ready_for_rules(network: nn.Module) -> Iterator[None]:
    """Let captum's rules work on `network` for one pass, and clear up what they leave on its modules.

    captum rewrites the gradient of the tensor that enters an activation: all of it, also what flows round the
    activation, and after the module before has read it. A copy on the way in belongs to the activation alone.

    Raises
    ------
    UsageError
        An activation runs twice in the pass: captum keeps what goes in and comes out only once.
    """
    seen: set[nn.Module] = set()

    def copy_once(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if module in seen:
            path = next(path for path, other in network.named_modules() if other is module)
            name = path.removesuffix(".highest")  # of `_PoolApart`
            raise UsageError(
                f"deeplift cannot explain this network: it uses {name!r} ({type(module).__name__}) more than once",
                "give every place in the network a module of its own, or use integrated-gradients",
            )
        seen.add(module)
        return tuple(value.clone() for value in inputs)

    ruled = [module for module in network.modules() if type(module) in _RESCALED]
    kept = [set(vars(module)) for module in ruled]
    handles = [module.register_forward_pre_hook(copy_once) for module in ruled]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, before in zip(ruled, kept, strict=True):
            for name in set(vars(module)) - before:  # inputs and outputs, left where no gradient came by
                delattr(module, name)


@contextmanager
def _pools_apart(network: nn.Module) -> Iterator[None]:
    """Put `_PoolApart` in the place of every max pooling whose windows overlap, for the length of the block."""
    places: list[tuple[nn.Module, str, nn.MaxPool2d]] = []
    for path, module in network.named_modules(remove_duplicate=False):
        if type(module) is nn.MaxPool2d and not module.return_indices and _overlaps(module):
            above, _, name = path.rpartition(".")
            places.append((network.get_submodule(above), name, module))
    apart = {pool: _PoolApart(pool) for _, _, pool in places}
    try:
        for parent, name, pool in places:
            setattr(parent, name, apart[pool])
        yield
    finally:
        for parent, name, pool in places:
            setattr(parent, name, pool)


def _overlaps(pool: nn.MaxPool2d) -> bool:
    return any(stride < side for stride, side in zip(_pair(pool.stride), _pair(pool.kernel_size), strict=True))


def _pair(value: Any) -> tuple[int, int]:
    """Return (rows, columns) of an argument that may be one number for both."""
    return value if isinstance(value, tuple) else (value, value)


class _PoolApart(nn.Module):
    """Max pooling with its windows laid side by side before the maximum is taken: the same numbers.

    captum's rule credits a pixel with one of the windows in which it is the highest, and loses the others: at the first
    layers of a DenseNet or a ResNet nearly half of the logit. Copies of pixels are linear, and need no rule.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.stride, self.side = _pair(pool.stride), _pair(pool.kernel_size)
        self.padding, self.dilation = _pair(pool.padding), _pair(pool.dilation)
        self.ceil_mode = pool.ceil_mode
        self.highest = nn.MaxPool2d((1, self.side[0] * self.side[1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = self._grid(x)
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.side, strict=True)]
        sides = []  # to pad, in the order of functional.pad: left, right, top, bottom
        for axis in (1, 0):
            needed = (grid[axis] - 1) * self.stride[axis] + spans[axis]
            sides += [self.padding[axis], needed - self.padding[axis] - x.shape[2 + axis]]
        # Padding never wins and is the same for picture and baseline; with -inf their difference would be NaN.
        padded = functional.pad(x, sides, value=float(x.detach().amin()) - 1)
        windows = padded.unfold(2, spans[0], self.stride[0]).unfold(3, spans[1], self.stride[1])
        windows = windows[..., :: self.dilation[0], :: self.dilation[1]]  # (B, C, h, w, side, side)
        highest: torch.Tensor = self.highest(windows.flatten(4).flatten(2, 3))  # (B, C, h * w, 1)
        return highest.view(*x.shape[:2], *grid)

    def _grid(self, x: torch.Tensor) -> torch.Size:
        """Return (h, w) of the output; with ceil_mode the last window may begin in the padding or not."""
        arguments = (self.side, self.stride, self.padding, self.dilation, self.ceil_mode)
        return functional.max_pool2d(x.detach()[:1, :1], *arguments).shape[2:]


# ---------------------------------------------------------------------------------------------------------------------
# LIME and KernelSHAP


def build_lime(options: LimeOptions) -> Explainer:
    """Return LIME (Ribeiro et al. 2016): coefficients of a ridge regression of the logit on superpixels shown.

    Half of the superpixels are hidden at random in each sample. A sample with a share d hidden counts with
    exp(-d² / (2 width²)). Every pixel has the coefficient of its superpixel.
    """
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    def nearness(_original: Any, _perturbed: Any, shown: torch.Tensor, **_: Any) -> float:
        hidden = 1 - float(shown.float().mean())
        # In float32 the weights of a narrow kernel would all be 0, which no regression can do with.
        return max(math.exp(-(hidden**2) / (2 * options.width**2)), 1e-30)

    def method(logits: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        # the default solver warns where alpha is 0 and superpixels are more than samples
        ridge = SkLearnRidge(alpha=options.alpha, solver="svd")
        return Lime(logits, interpretable_model=ridge, similarity_func=nearness)

    return _superpixel_explainer(method, options)


def build_kernelshap(options: SuperpixelOptions) -> Explainer:
    """Return KernelSHAP (Lundberg and Lee 2017): Shapley values of superpixels, by regression on random coalitions.

    Coalitions are drawn with the Shapley kernel, so that all count the same, but for the whole picture and the whole
    baseline, which count a million times as much. Every pixel has the value of its superpixel.
    """
    from captum.attr import KernelShap

    return _superpixel_explainer(KernelShap, options)


def _superpixel_explainer(
    method: Callable[[Callable[[torch.Tensor], torch.Tensor]], Any], options: SuperpixelOptions
) -> Explainer:
    """Return the explainer of ``method(logits)``. The first finding of a picture runs the network for all of them."""

    def explain(model: Model, x: torch.Tensor, targets: torch.Tensor, seeds: torch.Tensor) -> Maps:
        baseline = make_baseline(model, x, options.baseline)
        values = x.new_zeros(*targets.shape, *x.shape[2:])
        for b in told_pictures(targets):
            segments = superpixels(x[b], options)  # (H, W)
            sweep = _Sweep(model)
            for _, t, finding in _requested(targets[b : b + 1]):
                sweep.restart()
                with seeded(int(seeds[b])):
                    found = method(sweep).attribute(
                        x[b : b + 1],
                        baseline[b : b + 1],
                        target=finding,
                        feature_mask=segments[None, None],
                        n_samples=options.samples,
                        perturbations_per_eval=sweep.rows,
                        return_input_shape=False,
                    )
                values[b, t] = found.to(values).flatten()[segments]
        return Maps(values)

    return explain


class _Sweep:
    """Logits ``(n, K)`` of perturbed pictures: computed in the first round, given again in the others."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.rows = rows_at_once(model.device)
        self._met: list[tuple[torch.Tensor, torch.Tensor]] = []  # sums over the pictures' pixels, logits
        self._next = 0

    def restart(self) -> None:
        """Begin the next round, in which the same pictures come again."""
        self._next = 0

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        sums = pictures.sum(dim=(1, 2, 3), dtype=torch.float64)
        if self._next == len(self._met):
            padded = pad_batch(pictures, self.rows).contiguous(memory_format=self.model.memory_format)
            with torch.random.fork_rng(devices=[]):  # what the network draws must not move captum's draws
                self._met.append((sums, self.model.forward(padded)[: len(pictures)]))
        known, logits = self._met[self._next]
        if not torch.equal(sums, known):
            raise RuntimeError("captum hid other superpixels for the second finding than for the first")
        self._next += 1
        return logits


def superpixels(picture: torch.Tensor, options: SuperpixelOptions) -> torch.Tensor:
    """Divide a prepared picture ``(C, H, W)`` into superpixels: numbers ``(H, W)`` int64 from 0, none left out."""
    labels = _squares(picture, options.segments) if options.shape == "grid" else _slic(picture, options.segments)
    numbers, numbered = np.unique(labels, return_inverse=True)
    if len(numbers) < 2:
        raise UsageError("the picture makes a single superpixel", "ask for more with the option segments")
    return torch.from_numpy(numbered).view(picture.shape[1:]).to(picture.device)


def _squares(picture: torch.Tensor, count: int) -> NDArray[np.int64]:
    height, width = picture.shape[1:]
    side = math.sqrt(height * width / count)
    rows, columns = (max(1, round(length / side)) for length in (height, width))
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    return row[:, None] * columns + column


def _slic(picture: torch.Tensor, count: int) -> NDArray[np.int64]:
    """Return the superpixels of SLIC (Achanta et al. 2012).

    Nearness weighs 0.2 against likeness of grey values in [0, 1], which follows the lungs' outlines on chest films
    (scikit-image's 10 makes squares). Noise would fall into specks and then melt into one: the weight is doubled until
    there are at least half as many superpixels as asked for.
    """
    from skimage.segmentation import slic

    grey = picture.mean(dim=0).double().cpu().numpy()
    for doubled in range(10):
        compactness = 0.2 * 2**doubled
        labels: NDArray[np.int64] = slic(grey, count, compactness, channel_axis=None, start_label=0)
        if len(np.unique(labels)) >= count / 2:
            break
    return labels

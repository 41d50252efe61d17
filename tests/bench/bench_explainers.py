"""How fast films are explained, against the peers and against what the networks allow. Only the ratios count.

DenseNet-121 and ViT-S at 224 px with 14 findings, fp32, everything warm, in one process and with the same threads::

    python tests/bench/bench_explainers.py [--films 2] [--network NAME] [gradcam|smoothgrad|ig|occlusion|rise|bf16] ...

Peers are timed twice: as they come (their own batch size, a network as timm makes it, the allocator as glibc sets it),
and with our settings (8 rows a pass, channels last where that is faster, tuned allocator). f is one forward pass of
the batch, b a backward pass to the input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from common import (
    NETWORKS,
    correlation,
    describe_machine,
    films,
    first_findings,
    forward_backward,
    make_model,
    make_module,
    peak_memory,
    run,
    seconds,
)
from torch import nn

from cxrx.explainers.guard import guard
from cxrx.models.inference import tune_allocator
from cxrx.models.model import Model

ROWS = 8
"""Pictures a pass, for ours and for peers with our settings: the best number on a CPU."""
FINDINGS = 14


class Bench:
    """One network, as peers get it and as cxrx runs it, and some films.

    Attributes
    ----------
    plain, x_plain
        The network and its input ``(B, 3, 224, 224)`` as they come.
    model, x
        The same, as cxrx holds them.
    tuned
        Whether the allocator has been tuned, which cannot be undone: what runs before is timed as it comes.
    """

    def __init__(self, name: str, pixels: torch.Tensor) -> None:
        self.name = name
        self.plain = make_module(name).requires_grad_(requires_grad=False)
        self.model = make_model(name)
        self.x = self.model.prepare(pixels)
        self.x_plain = self.x.contiguous()

    def time_peer(self, ask: Callable[[nn.Module, torch.Tensor], Any], *, ours: bool) -> float:
        """Return the seconds of ``ask(network, x)``, with our network or as it comes."""
        network, x = (self.model.module, self.x) if ours else (self.plain, self.x_plain)
        with guard(network):
            return seconds(lambda: ask(network, x), 1)


# ---------------------------------------------------------------------------------------------------------------------
# Peers. Each is asked for one finding of one picture at a time, as its interface has it.


def peer_gradcam(model: Model) -> Callable[[nn.Module, torch.Tensor], None]:
    """Return pytorch-grad-cam, asked for 14 findings of a batch."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = model.cam_layer()

    def ask(network: nn.Module, x: torch.Tensor) -> None:
        size = (x.shape[2], x.shape[3])
        target = network.get_submodule(layer.name)
        cam = pytorch_grad_cam.GradCAM(network, [target], lambda output: layer.to_grid(output, size))
        for k in range(FINDINGS):
            cam(x.clone().requires_grad_(), [ClassifierOutputTarget(k)] * len(x))
        cam.activations_and_grads.release()

    return ask


def peer_smoothgrad(n: int, rows: int | None, findings: int) -> Callable[[nn.Module, torch.Tensor], None]:
    """Return captum's NoiseTunnel, `rows` noisy copies a pass (None: all)."""
    from captum.attr import NoiseTunnel, Saliency

    def ask(network: nn.Module, x: torch.Tensor) -> None:
        tunnel = NoiseTunnel(Saliency(network))
        for k in range(findings):
            for picture in x:
                tunnel.attribute(
                    picture[None].clone(), nt_samples=n, nt_samples_batch_size=rows, stdevs=0.15, target=k, abs=False
                )

    return ask


def peer_ig(n: int, rows: int | None, findings: int) -> Callable[[nn.Module, torch.Tensor], None]:
    """Return captum's integrated gradients, `rows` points a pass (None: all)."""
    from captum.attr import IntegratedGradients

    def ask(network: nn.Module, x: torch.Tensor) -> None:
        method = IntegratedGradients(network)
        for k in range(findings):
            for picture in x:
                method.attribute(picture[None].clone(), n_steps=n, internal_batch_size=rows, target=k)

    return ask


def peer_occlusion(rows: int) -> Callable[[nn.Module, torch.Tensor], None]:
    """Return captum's occlusion for one finding, `rows` windows a pass."""
    from captum.attr import Occlusion

    def ask(network: nn.Module, x: torch.Tensor) -> None:
        with torch.no_grad():
            for picture in x:
                Occlusion(network).attribute(
                    picture[None], (3, 32, 32), (3, 16, 16), target=0, perturbations_per_eval=rows
                )

    return ask


# ---------------------------------------------------------------------------------------------------------------------
# Benchmarks: first what peers take as they come, then, with the allocator tuned, the rest


def as_they_come(bench: Bench, what: Sequence[str], n: int) -> dict[str, float]:
    """Return the seconds of the peers as they come."""
    asks = {
        "gradcam": peer_gradcam(bench.model),
        "smoothgrad": peer_smoothgrad(n, None, 1),
        "ig": peer_ig(n, None, 1),
        "occlusion": peer_occlusion(1),
    }
    return {name: bench.time_peer(ask, ours=False) for name, ask in asks.items() if name in what}


def bench_gradcam(bench: Bench, plain: float) -> None:
    """Grad-CAM for 14 findings against one forward, and against the peer asked for each of them."""
    f, _ = forward_backward(bench.model, bench.x)
    theirs = bench.time_peer(peer_gradcam(bench.model), ours=True)
    ours = seconds(lambda: run(bench.model, bench.x, "gradcam", first_findings(FINDINGS, bench.x)), 5)
    print(f"{bench.name}: gradcam, 14 findings: {ours / len(bench.x):.3f} s a film, {ours / f:.2f} forwards; ", end="")
    print(f"pytorch-grad-cam takes {plain / ours:.0f} times as long as it comes, {theirs / ours:.0f} with our settings")


def bench_paths(bench: Bench, method: str, plain: float, n: int) -> None:
    """SmoothGrad or integrated gradients: one and three findings, against the peer and the bound of shared forwards."""
    model, x = bench.model, bench.x
    option = {"smoothgrad": "n", "ig": "steps"}[method]
    peer = {"smoothgrad": peer_smoothgrad, "ig": peer_ig}[method]
    peaks = [peak_memory(lambda k=k: run(model, x, method, first_findings(1, x), **{option: k})) for k in (n, 4 * n)]
    print(
        f"{bench.name}: {method}, memory: {n} samples take {peaks[0]:.0f} MB, {4 * n} after them {peaks[1]:.0f} MB more"
    )
    f, b = forward_backward(model, model.prepare(films(ROWS)))
    one = bench.time_peer(peer(n, ROWS, 1), ours=True)
    for findings in (1, 3):
        targets = first_findings(findings, x)
        ours = seconds(lambda t=targets: run(model, x, method, t, **{option: n}), 3)
        bound = findings * (f + b) / (f + findings * b)
        cost = n * len(x) * (f + findings * b) / ROWS
        print(f"{bench.name}: {method}, {n} samples, {findings} findings: {ours / len(x):.2f} s a film, ", end="")
        print(
            f"{ours / cost:.2f} of n(f+kb); captum takes {findings * plain / ours:.2f} times as long as it comes, ",
            end="",
        )
        print(f"{findings * one / ours:.2f} with our settings (sharing the forwards bounds this at {bound:.2f})")


def bench_occlusion(bench: Bench, plain: float) -> None:
    """Occlusion for 14 findings against the peer called for each, and against a forward pass for every window."""
    model, x = bench.model, bench.x
    f, _ = forward_backward(model, model.prepare(films(ROWS)))
    one = bench.time_peer(peer_occlusion(ROWS), ours=True)
    ours = seconds(lambda: run(model, x, "occlusion", first_findings(FINDINGS, x)), 3)
    floor = f / ROWS * 13**2 * len(x)
    print(
        f"{bench.name}: occlusion, 14 findings: {ours / len(x):.2f} s a film, {ours / floor:.2f} of its floor; captum ",
        end="",
    )
    print(f"(14 times one call) takes {FINDINGS * plain / ours:.0f} times as long as it comes, ", end="")
    print(f"{FINDINGS * one / ours:.0f} with our settings")


def bench_rise(bench: Bench) -> None:
    """RISE with 1,000 masks for 14 findings against a forward pass for every mask."""
    model, x = bench.model, bench.x[:1]
    f, _ = forward_backward(model, model.prepare(films(ROWS)))
    ours = seconds(lambda: run(model, x, "rise", first_findings(FINDINGS, x), masks=1000), 1)
    print(f"{bench.name}: rise, 14 findings: {ours:.1f} s a film, {ours / (f / ROWS * 1000):.2f} of its floor")


def bench_bf16(bench: Bench) -> None:
    """What bfloat16 saves, and how well its maps correlate with those in float32."""
    model, x = bench.model, bench.x
    methods: dict[str, dict[str, Any]] = {
        "smoothgrad": {"n": 50},
        "ig": {"steps": 50},
        "occlusion": {},
        "rise": {"masks": 200},
        "extremal": {"steps": 20, "every": 1, "stop": False},
    }
    targets = first_findings(1, x)
    for method, options in methods.items():
        full = partial(run, model, x, method, targets, **options)
        half = partial(full, dtype="bf16")
        print(f"{bench.name}: {method} in bf16: {seconds(full, 1) / seconds(half, 1):.2f} times as fast, ", end="")
        print(f"correlation with fp32 {correlation(full(), half()):.3f}")


WHAT = ("gradcam", "smoothgrad", "ig", "occlusion", "rise", "bf16")


def main() -> None:
    """Print one line for each method and network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=WHAT, help=f"of {', '.join(WHAT)}; default: all")
    parser.add_argument("--films", type=int, default=2)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    print(describe_machine())
    benches = [Bench(name, films(arguments.films)) for name in arguments.network or NETWORKS]
    plain = [as_they_come(bench, arguments.what, arguments.samples) for bench in benches]
    tune_allocator()
    for bench, before in zip(benches, plain, strict=True):
        if "gradcam" in arguments.what:
            bench_gradcam(bench, before["gradcam"])
        for method in ("smoothgrad", "ig"):
            if method in arguments.what:
                bench_paths(bench, method, before[method], arguments.samples)
        if "occlusion" in arguments.what:
            bench_occlusion(bench, before["occlusion"])
        if "rise" in arguments.what:
            bench_rise(bench)
        if "bf16" in arguments.what:
            bench_bf16(bench)


if __name__ == "__main__":
    main()

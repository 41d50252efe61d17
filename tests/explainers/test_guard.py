from __future__ import annotations

import pytest
import torch
from torch import nn

from cxrx.explainers.guard import guard


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fused_attn = True
        self.inplace = True
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def network() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), Attention(), nn.Linear(3, 1))
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(requires_grad=False)
    net[3].weight.grad = torch.full_like(net[3].weight, 7.0)
    net[3].register_forward_hook(lambda *_: None)
    return net


def state(net: nn.Module) -> dict:
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "training": [module.training for module in net.modules()],
        "grad": [parameter.requires_grad for parameter in net.parameters()],
        "grads": [None if p.grad is None else p.grad.tolist() for p in net.parameters()],
        "hooks": [list(getattr(module, table)) for module in net.modules() for table in tables],
        "with_kwargs": [list(module._forward_hooks_with_kwargs) for module in net.modules()],
        "full": [module._is_full_backward_hook for module in net.modules()],
        "fused": net[2].fused_attn,
        "inplace": net[2].inplace,
    }


def disturb(net: nn.Module) -> None:
    net.train()
    net[2].fused_attn = False
    net[2].inplace = False
    net[0].register_forward_hook(lambda *_: None, with_kwargs=True)
    net[0].register_forward_pre_hook(lambda *_: None)
    net[1].register_full_backward_hook(lambda *_: None)
    net.requires_grad_()
    net[3].weight.grad = None
    net[0].bias.grad = torch.ones(3)


def test_everything_is_as_before_after_an_explanation():
    net = network()
    before = state(net)
    with guard(net):
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
        disturb(net)
    assert state(net) == before


def test_everything_is_as_before_after_an_exception():
    net = network()
    before = state(net)

    def explain_badly():
        with guard(net):
            disturb(net)
            net[2](torch.zeros(1, 5))

    with pytest.raises(RuntimeError, match="shape"):
        explain_badly()
    assert state(net) == before


def test_the_users_own_gradient_tensor_is_the_same_object():
    net = network()
    mine = net[3].weight.grad
    with guard(net):
        net.zero_grad()
    assert net[3].weight.grad is mine


def test_hooks_removed_inside_stay_removed_and_old_ones_still_work():
    net = network()
    calls = []
    handle = net[0].register_forward_hook(lambda *_: calls.append("old"))
    with guard(net):
        inner = net[0].register_forward_hook(lambda *_: calls.append("new"))
        inner.remove()
    net(torch.zeros(2, 3))
    assert calls == ["old"]
    handle.remove()


@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode])
def test_gradients_can_be_taken_whatever_the_caller_has_set(outer):
    net = network()
    with outer(), guard(net):
        x = torch.ones(1, 3).requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).sum(), x)
    assert gradient.abs().sum() > 0

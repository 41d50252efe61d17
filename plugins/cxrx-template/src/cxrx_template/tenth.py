"""A new faithfulness metric: how far the logit falls without the tenth of the picture that the map ranks highest."""

from typing import Any

from cxrx import Measure, MetricSpec, hookimpl

SHARE = 0.1


def fall_without_tenth(model: Any, x: Any, maps: Any, targets: Any) -> dict[str, Any]:
    """Return the fall of the logit, ``(B, T)``, when the strongest pixels of each map take the picture's mean grey.

    Parameters
    ----------
    model
        ``model.logits(x)`` gives ``(B, K)`` logits.
    x
        ``(B, C, H, W)`` prepared pictures.
    maps
        ``(B, T, h, w)``, on a grid of any size.
    targets
        ``(B, T)`` indices of logits; -1 is empty.
    """
    import torch
    from torch.nn import functional

    wanted, values = torch.as_tensor(targets, device=x.device), torch.as_tensor(maps, device=x.device).float()
    strength = functional.interpolate(values, x.shape[2:], mode="bilinear").flatten(2)  # (B, T, H * W)
    chosen = strength.argsort(dim=2, descending=True, stable=True)[..., : round(SHARE * strength.shape[2])]
    hidden = torch.zeros_like(strength, dtype=torch.bool).scatter(2, chosen, value=True)
    grey = x.mean(dim=(2, 3), keepdim=True)
    logits = model.logits(x)
    falls = torch.full(wanted.shape, torch.nan)
    for column, mask in enumerate(hidden.view(*wanted.shape, 1, *x.shape[2:]).unbind(dim=1)):  # (B, 1, H, W)
        own = wanted[:, column : column + 1]  # (B, 1)
        fall = (logits - model.logits(torch.where(mask, grey, x))).gather(1, own.clamp(min=0))
        falls[:, column] = fall.where(own >= 0, torch.nan)[:, 0].cpu()
    return {"fall_without_tenth": falls.numpy()}


@hookimpl
def register_metrics(register: Any) -> None:
    """Register the metric: its name, its kind, and what each key that it returns is (higher is better: the default)."""
    fall = Measure("fall of the logit without the strongest tenth of the map", unit="logits")
    measures = {"fall_without_tenth": fall}
    register(MetricSpec("tenth", "faithfulness", fall_without_tenth, measures=measures))

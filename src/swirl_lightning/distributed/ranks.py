"""What ranks tell each other: sums of numbers and of gradients. Plain torch: no Lightning here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

_BUCKET = 1 << 24  # gradients that are reduced together; a bucket is copied


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(value: float) -> float:
    """Sum of a number over all ranks; the number itself in a single process."""
    if _ranks() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


def add_over_ranks(values: Mapping[str, float]) -> dict[str, float]:
    """Sums over all ranks, name by name; a name that a rank lacks counts as zero there."""
    everyone: list[Mapping[str, float] | None] = [values]
    if _ranks() > 1:
        everyone = [None] * _ranks()
        dist.all_gather_object(everyone, dict(values))
    total: dict[str, float] = {}
    for mine in everyone:
        for name, value in (mine or {}).items():
            total[name] = total.get(name, 0.0) + value
    return total


def reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Adds gradients up over ranks, in place. Losses are divided by the global batch already, so a sum is right.

    Sharded parameters (FSDP2) are reduced in their backward pass and left alone here. A rank without a gradient (an empty
    batch) contributes zeros.

    Args:
        parameters: those of the phase, equal on every rank.
    """
    if _ranks() == 1:
        return
    bucket: list[torch.Tensor] = []
    for parameter in parameters:
        if not parameter.requires_grad or isinstance(parameter, DTensor):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (sum(g.numel() for g in bucket) + parameter.numel() > _BUCKET or bucket[0].dtype != parameter.grad.dtype):
            _reduce(bucket)
            bucket = []
        bucket.append(parameter.grad)
    _reduce(bucket)


def _reduce(gradients: Sequence[torch.Tensor]) -> None:
    if not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, total in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))

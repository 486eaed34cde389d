"""What data-parallel training needs beyond Lightning's own strategies."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor


def sum_over_ranks(value: float) -> float:
    """Sum of a number over all ranks; the number itself in a single process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)


def reduce_gradients(trainer: L.Trainer, parameters: Sequence[nn.Parameter]) -> None:
    """Adds gradients up over ranks, in place. Losses are divided by the global batch already, so a sum is right.

    Sharded parameters (FSDP2) are reduced in their backward pass and left alone here. A rank without a gradient (an empty
    batch) contributes zeros.

    Args:
        trainer: tells the number of ranks.
        parameters: those of the phase, equal on every rank.
    """
    if trainer.world_size == 1:
        return
    plain = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    for parameter in plain:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if plain:
        flat = torch.cat([p.grad.reshape(-1) for p in plain if p.grad is not None])
        dist.all_reduce(flat)
        offset = 0
        for parameter in plain:
            assert parameter.grad is not None
            size = parameter.numel()
            parameter.grad.copy_(flat[offset : offset + size].view_as(parameter))
            offset += size

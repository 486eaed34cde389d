"""The default optimizer, and a learning-rate schedule that starts anew with every phase."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from swirl_lightning.world_model.precision import lost_updates


def adamw(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """AdamW without weight decay, learning rate 1e-5."""
    return AdamW(parameters, lr=1e-5, weight_decay=0.0)


def warn_of_lost_updates(optimizers: Sequence[Optimizer]) -> None:
    """Says what share of updates bfloat16 weights lose, where optimizers have such."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if share := lost_updates(group["params"], rate := float(group["lr"])):
                warnings.warn(
                    f"bfloat16 weights lose {share:.0%} of the updates that {type(optimizer).__name__} makes at learning rate "
                    f"{rate:g} (Adam's are about as large as the rate): set world_model.dtype to float32 and compute_dtype to "
                    "bfloat16, or take an optimizer that keeps float32 weights of its own",
                    stacklevel=2,
                )


class PhaseLR(LRScheduler):
    """Linear warm-up, then cosine, linear or no decay over the steps of one phase.

    The module calls :meth:`start` when a phase begins. Phases of the paper are separate runs with a schedule of their own
    (arXiv:2602.06130, training details: 25 to 100 warm-up steps, cosine).

    Args:
        optimizer: The optimizer.
        warmup_steps: Steps of the linear ramp; a number below 1 is a share of the phase's steps.
        decay: Shape after the ramp.
        floor: Last learning rate as a share of the optimizer's.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: float = 0,
        decay: Literal["cosine", "linear", "constant"] = "cosine",
        floor: float = 0.1,
    ) -> None:
        if warmup_steps < 0:
            raise ValueError(f"PhaseLR: warmup_steps must be >= 0, got {warmup_steps}")
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.floor = floor
        self.total_steps = 1
        super().__init__(optimizer)

    def start(self, total_steps: int) -> None:
        """Begin a phase of ``total_steps`` steps."""
        self.total_steps = max(1, total_steps)
        self.last_epoch = 0
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = self.get_lr()

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates at the current step of the phase."""
        return [base * self._factor(self.last_epoch) for base in self.base_lrs]

    def _factor(self, step: int) -> float:
        ramp = self.warmup_steps if self.warmup_steps >= 1 else self.warmup_steps * self.total_steps
        if step < ramp:
            return (step + 1) / (ramp + 1)
        if self.decay == "constant":
            return 1.0
        done = min(1.0, (step - ramp) / max(1.0, self.total_steps - ramp))
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.floor + (1 - self.floor) * left

"""What makes ``--trainer.strategy ddp`` and ``fsdp`` work with two models that take turns."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy, StrategyRegistry
from typing_extensions import override


class ReplicatedStrategy(DDPStrategy):
    """``--trainer.strategy ddp``: every rank holds all weights; gradients of the phase's model are added up before its step.

    Nothing is wrapped. DistributedDataParallel either stops at parameters that a phase leaves unused, or looks for them in
    every backward pass, and it silently never reduces those that are frozen when it wraps; a SWIRL step moreover runs several
    backward passes, each of which it would reduce.
    """

    @override
    def configure_ddp(self) -> None:
        """Makes the ranks' weights equal, once."""
        assert self.model is not None
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            dist.broadcast(tensor.detach(), src=0)


def register() -> None:
    """Lets ``ddp``, which ``auto`` also chooses for several devices, mean :class:`ReplicatedStrategy` in this process."""
    StrategyRegistry.register("ddp", ReplicatedStrategy, description=ReplicatedStrategy.__doc__, override=True)


def check_strategy(strategy: Any) -> None:
    """Refuses strategies under which two models that take turns diverge, hang or stop.

    Raises:
        ValueError: naming the strategies to use.
    """
    if isinstance(strategy, ParallelStrategy) and not isinstance(strategy, ReplicatedStrategy):
        raise ValueError(
            f"trainer.strategy: {type(strategy).__name__} cannot train two models that take turns under manual optimisation; "
            "set it to ddp, fsdp or auto (from Python: swirl_lightning.strategies.ReplicatedStrategy() or ShardedStrategy())"
        )

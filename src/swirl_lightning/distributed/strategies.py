"""What makes ``--trainer.strategy ddp`` and ``fsdp`` work with two models that take turns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy, StrategyRegistry
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from typing_extensions import override

from swirl_lightning.distributed import shards
from swirl_lightning.distributed.sharding import Sharding, fill, whole
from swirl_lightning.distributed.shards import Stored
from swirl_lightning.distributed.watch import RankWatch, StoppedAloneError, watch_ranks


class _Watched(ParallelStrategy):
    """Ranks that end together when one of them fails (see :mod:`swirl_lightning.distributed.watch`)."""

    _watch: RankWatch | None = None

    @override
    def setup_environment(self) -> None:
        super().setup_environment()
        self._watch = watch_ranks()

    @override
    def on_exception(self, exception: BaseException) -> None:
        super().on_exception(exception)
        agreed = isinstance(exception, SystemExit) and not isinstance(exception, StoppedAloneError)
        if self._watch is not None and not agreed:
            self._watch.fail(exception)

    @override
    def teardown(self) -> None:
        if self._watch is not None:
            self._watch.leave()
        super().teardown()


class ReplicatedStrategy(_Watched, DDPStrategy):
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


class ShardedStrategy(_Watched, ModelParallelStrategy):
    """``--trainer.strategy fsdp``: weights, gradients and optimizer states are spread over all ranks (FSDP2), block by block.

    Lightning's own ``fsdp`` (FSDP1) cannot be used: a backward pass inside ``training_step`` breaks its state machine.
    Checkpoints are those of the other strategies, one file of whole tensors, or in shards; either way a run may go on from them
    under any strategy, on any number of devices.

    Args:
        compute_dtype: ``bfloat16`` casts float32 weights for every pass (mixed precision); None takes the models' own.
        offload: Keep all shards on the CPU between passes (CUDA only).
        offload_reference: Keep the shards of the reference policy on the CPU between passes (CUDA only).
        sharded_checkpoints: Every rank writes its own shards, into a folder beside the checkpoint that all ranks can reach;
            otherwise rank 0 gathers everything on its CPU.
    """

    def __init__(
        self,
        compute_dtype: Literal["float32", "bfloat16"] | None = None,
        offload: bool = False,
        offload_reference: bool = False,
        sharded_checkpoints: bool = False,
    ) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.compute_dtype, self.offload, self.offload_reference = compute_dtype, offload, offload_reference
        self.sharded_checkpoints = sharded_checkpoints

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()

    def sharding(self) -> Sharding:
        """How the models are to be spread."""
        dtype = None if self.compute_dtype is None else getattr(torch, self.compute_dtype)
        return Sharding(self.device_mesh["data_parallel"], dtype, self.offload, self.offload_reference)

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def model_to_device(self) -> None:
        assert self.model is not None
        for module in self.model.modules():  # parameters are where they belong; offloaded ones must stay
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.root_device))

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        state: dict[str, Any] = self._gathered(self.lightning_module.state_dict())
        return state

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = self._gathered(optimizer.state_dict())
        return state

    def _gathered(self, state: Any) -> Any:
        """A state with whole tensors on rank 0, one gathered at a time, other ranks keep none; or as it is, for shards."""
        if self.sharded_checkpoints:
            return state
        if isinstance(state, dict):
            return {key: self._gathered(value) for key, value in state.items()}
        if isinstance(state, list):
            return [self._gathered(value) for value in state]
        if isinstance(state, torch.Tensor):
            full = whole(state.detach())
            return full.cpu() if self.is_global_zero else None
        return state

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None) -> None:
        if self.sharded_checkpoints:
            folder: Path = self.broadcast(shards.new_folder(Path(filepath)))
            checkpoint, tensors = shards.split(checkpoint, folder)
            shards.write(folder, tensors, self.global_rank, self.world_size)
            self.barrier("shards")  # the file that refers to them comes last
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        # mapped, not read: every rank reads the rows of its own shards only
        loaded: dict[str, Any] = torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)
        return shards.join(loaded, Path(checkpoint_path), whole=False)

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own, given = self.lightning_module.state_dict(), checkpoint["state_dict"]
        if strict and own.keys() != given.keys():
            raise ValueError(
                f"the checkpoint does not belong to these models: {sorted(own.keys() ^ given.keys())[:3]} are in one only; "
                "resume with the world_model settings of the run"
            )
        for name in own.keys() & given.keys():
            fill(own[name], given[name])

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            shards = {i: {k: _like(v, parameters[i]) for k, v in values.items()} for i, values in state["state"].items()}
            optimizer.load_state_dict({**state, "state": shards})


def _like(value: Any, parameter: torch.Tensor) -> Any:
    """A whole tensor of an optimizer's state, spread as its parameter is."""
    if isinstance(parameter, DTensor) and isinstance(value, torch.Tensor | Stored) and value.shape == parameter.shape:
        spread = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
        fill(spread, value)
        return spread
    return value.whole() if isinstance(value, Stored) else value


def sharding_of(trainer: L.Trainer | None) -> Sharding | None:
    """How a trainer spreads models; None where every rank holds them whole."""
    strategy = None if trainer is None else trainer.strategy
    return strategy.sharding() if isinstance(strategy, ShardedStrategy) else None


def register() -> None:
    """Lets ``ddp``, which ``auto`` also chooses for several devices, mean :class:`ReplicatedStrategy` in this process."""
    StrategyRegistry.register("ddp", ReplicatedStrategy, description=ReplicatedStrategy.__doc__, override=True)


def check_strategy(strategy: Any) -> None:
    """Refuses strategies under which two models that take turns diverge, hang or stop, and a precision of the trainer's own.

    Raises:
        ValueError: naming the strategies or the settings to use.
    """
    if isinstance(strategy, ParallelStrategy) and not isinstance(strategy, ReplicatedStrategy | ShardedStrategy):
        raise ValueError(
            f"trainer.strategy: {type(strategy).__name__} cannot train two models that take turns under manual optimisation; "
            "set it to ddp, fsdp or auto (from Python: ReplicatedStrategy() or ShardedStrategy() of "
            "swirl_lightning.distributed.strategies)"
        )
    if (precision := strategy.precision_plugin.precision) != "32-true":
        raise ValueError(
            f"Trainer(precision={precision!r}) would not reach rollouts and scores: leave it out, and set the models' "
            "compute_dtype to 'bfloat16' (WorldModelConfig; does what bf16-mixed means) or their dtype (bf16-true)"
        )

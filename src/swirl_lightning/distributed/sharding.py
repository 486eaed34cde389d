"""Models whose weights are spread over ranks (FSDP2), and keeping the ranks in step: every forward pass is collective then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from swirl_lightning.distributed.ranks import sum_over_ranks
from swirl_lightning.distributed.shards import Stored
from swirl_lightning.internals import computes_in, each_tensor, settle_gradient_types, unsplit_blocks

T = TypeVar("T")


@dataclass(frozen=True)
class Sharding:
    """How models are spread.

    Attributes:
        mesh: one-dimensional, over all ranks.
        compute_dtype: weights are cast to it for a pass, and gradients are reduced in float32; None computes in their own.
        offload: keep every shard on the CPU between passes.
        offload_reference: keep those of the reference policy on the CPU.
    """

    mesh: DeviceMesh
    compute_dtype: torch.dtype | None = None
    offload: bool = False
    offload_reference: bool = False

    def apply(self, model: PreTrainedModel, *, reference: bool = False) -> None:
        """Shards a causal LM in place: every block of the architecture's own no-split list, then what is left.

        Args:
            model: on the meta device, or equal on every rank.
            reference: whether it is the reference policy.
        """
        names = unsplit_blocks(model)
        blocks = [module for module in model.modules() if type(module).__name__ in names]
        if not blocks:
            raise ValueError(
                f"{type(model).__name__} does not say which of its blocks may be split (_no_split_modules): "
                "trainer.strategy fsdp cannot shard it, use ddp"
            )
        # inputs are token ids and layouts; casting would hand a block a copy of its layout, and what it captures would be lost
        policy = MixedPrecisionPolicy(self.compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        away = self.mesh.device_type != "cpu" and (self.offload or (reference and self.offload_reference))
        options: dict[str, Any] = {
            "mesh": self.mesh,
            "mp_policy": policy,
            "offload_policy": CPUOffloadPolicy() if away else OffloadPolicy(),
        }
        for block in blocks:
            fully_shard(block, reshard_after_forward=True, **options)
        # the output head is called outside the graph that FSDP watches (see head.py), so it stays whole until its backward pass
        fully_shard(model, reshard_after_forward=False, **options)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # losses are divided by the global batch already: a sum is right
                module.set_force_sum_reduction_for_comms(True)


def is_sharded(model: nn.Module) -> bool:
    """Whether a forward pass of the model needs all ranks."""
    return isinstance(model, FSDPModule)


def device_of(model: PreTrainedModel) -> torch.device:
    """Where a model computes; shards may lie elsewhere."""
    parameter = next(model.parameters())
    if isinstance(parameter, DTensor) and parameter.device_mesh.device_type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return parameter.device


def compute_dtype(model: PreTrainedModel) -> torch.dtype:
    """What a model computes in."""
    dtype: torch.dtype = computes_in(model) or model.dtype
    return dtype


def in_step(items: Iterable[T], model: nn.Module) -> Iterator[T | None]:
    """The items, one forward pass each; where the model is sharded, as many on every rank: None once a rank has no more."""
    if not is_sharded(model):
        yield from items
        return
    own = iter(items)
    while True:
        item = next(own, None)
        if sum_over_ranks(float(item is not None)) == 0:
            return
        yield item


def any_rank(flag: bool, model: nn.Module) -> bool:
    """Whether the flag is set here or, where the model is sharded, on any rank."""
    return sum_over_ranks(float(flag)) > 0 if is_sharded(model) else flag


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor; every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_rows(tensor: Tensor) -> Tensor:
    """The rows of a tensor that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor | Stored) -> None:
    """Writes whole values, equal on every rank, into a tensor that may be sharded."""
    if isinstance(tensor, DTensor):
        size = -(-len(values) // tensor.device_mesh.size())
        rank = tensor.device_mesh.get_local_rank()
        if len(rows := values[rank * size : (rank + 1) * size]):
            tensor.to_local().copy_(rows)
    else:
        tensor.copy_(values.whole() if isinstance(values, Stored) else values)


def load_from_first(model: nn.Module, source: nn.Module | None, sharding: Sharding) -> None:
    """Gives a sharded model on the meta device the weights that rank 0 has read, tensor by tensor.

    Args:
        model: sharded; its buffers are in place.
        source: the whole model on rank 0, None elsewhere.
        sharding: how it was sharded.
    """
    device = sharding.mesh.device_type
    each_tensor(model, lambda t: torch.empty_like(t, device=device) if t.is_meta else t.to(device))
    given = {} if source is None else dict(source.named_parameters())
    for name, parameter in model.named_parameters():
        values = (
            given[name].detach().to(device) if given else torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
        )
        dist.broadcast(values, src=0)
        fill(parameter, values)
    if isinstance(model, FSDPModule):
        settle_gradient_types(model)

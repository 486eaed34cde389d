"""What weights are kept in, and what is computed in: float32 weights lose no small update, bfloat16 products are quick."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swirl_lightning.distributed.sharding import local_rows
from swirl_lightning.internals import exact_modules, own_parameters

Dtype = Literal["auto", "float32", "bfloat16"]
ComputeDtype = Literal["auto", "float32", "bfloat16", "fastest"]
_OF_TRAINER: dict[str, tuple[Dtype, Dtype]] = {  # Lightning's name: what weights are kept in, what is computed in
    "32-true": ("float32", "float32"),
    "32": ("float32", "float32"),
    "bf16-mixed": ("float32", "bfloat16"),
    "bf16": ("float32", "bfloat16"),
    "bf16-true": ("bfloat16", "bfloat16"),
}


def of_trainer(precision: str | int, dtype: Dtype, compute_dtype: ComputeDtype) -> tuple[Dtype, Dtype]:
    """What ``trainer.precision`` means for the models: types of weights and of products.

    Rollouts and scores must be computed as the training pass is, so that the models are told, and not the trainer.

    Args:
        precision: Lightning's name.
        dtype: ``world_model.dtype``.
        compute_dtype: ``world_model.compute_dtype``.

    Returns:
        Values of ``dtype`` and ``compute_dtype``.

    Raises:
        ValueError: for a precision that models cannot be trained in, or one that contradicts the models' own settings.
    """
    if (meant := _OF_TRAINER.get(str(precision))) is None:
        raise ValueError(
            f"trainer.precision {precision} is not supported: log-probabilities of rare tokens leave the range of half "
            "precision; set it to bf16-mixed (or model.world_model.compute_dtype to bfloat16), bf16-true or 32-true"
        )
    for name, own, wanted in (("dtype", dtype, meant[0]), ("compute_dtype", compute_dtype, meant[1])):
        if own not in ("auto", wanted):
            raise ValueError(
                f"trainer.precision {precision} means world_model.{name} {wanted}, which is set to {own}; drop one"
            )
    return meant


def compute_type(asked: ComputeDtype, weights: Dtype) -> torch.dtype:
    """What is computed in: by default bfloat16 where a GPU has it, and float32 elsewhere; ``fastest`` asks a CPU, too.

    Args:
        asked: ``world_model.compute_dtype``.
        weights: ``world_model.dtype``; bfloat16 weights are computed with in bfloat16.

    Returns:
        The type.

    Raises:
        ValueError: if bfloat16 weights are to be computed with in float32: nothing would be gained.
    """
    if weights == "bfloat16" and asked == "float32":
        raise ValueError("world_model.compute_dtype float32 needs world_model.dtype float32, got bfloat16")
    if asked in ("auto", "fastest"):
        quick = weights == "bfloat16" or (torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False))
        quick |= asked == "fastest" and not torch.cuda.is_available() and _cpu_has_bfloat16()
        return torch.bfloat16 if quick else torch.float32
    if asked == "bfloat16" and not torch.cuda.is_available() and not _cpu_has_bfloat16():
        warnings.warn(
            "world_model.compute_dtype: this processor has no bfloat16 products (AVX512-BF16 or AMX), which are orders of "
            "magnitude slower than float32 ones; leave it at auto",
            stacklevel=2,
        )
    return torch.bfloat16 if asked == "bfloat16" else torch.float32


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {"bf16": True}
    return any(has for name, has in capabilities.items() if "bf16" in name)


@contextmanager
def computing_in(model: PreTrainedModel, dtype: torch.dtype, *, training: bool) -> Iterator[None]:
    """Within it a model's float32 weights are replaced by casts of themselves, made once; gradients reach the weights.

    It is what FSDP's mixed precision does for sharded models: products, activations and their gradients are in ``dtype``,
    and the gradients of weights are added up in float32. So are adapters, or peft would cast all activations around them.

    Args:
        model: with weights in one type.
        dtype: float32 changes nothing.
        training: let gradients through.
    """
    if dtype == torch.float32:
        yield
        return
    exact = exact_modules(model)
    casts: dict[Tensor, Tensor] = {}  # tied weights stay tied
    replaced: list[tuple[dict[str, nn.Parameter | None], str, nn.Parameter]] = []
    try:
        with torch.set_grad_enabled(training):
            for path, module in model.named_modules():
                for name, weight in own_parameters(module).items():
                    if weight is None or weight.dtype != torch.float32:
                        continue
                    if any(part in exact for part in (*path.split("."), name)):
                        continue
                    replaced.append((own_parameters(module), name, weight))
                    if weight not in casts:
                        casts[weight] = weight.to(dtype)
        for parameters, name, weight in replaced:
            parameters[name] = casts[weight]  # type: ignore[assignment]  # not a parameter, so that gradients go on
        yield
    finally:
        for parameters, name, weight in replaced:
            parameters[name] = weight


@torch.no_grad()
def lost_updates(parameters: Iterable[Tensor], step: float, most: int = 1 << 20) -> float:
    """Share of bfloat16 weights that an update of size ``step`` leaves where they are: no bfloat16 number is that near.

    Args:
        parameters: weights.
        step: size of an update; Adam's is about its learning rate.
        most: weights of a tensor that are looked at.

    Returns:
        A share of the weights that are not 0, both directions taken together; 0 without bfloat16 weights.
    """
    lost, total = 0, 0
    for parameter in parameters:
        if parameter.dtype == torch.bfloat16:
            weights = local_rows(parameter.detach()).flatten()[:most]
            weights = weights[weights != 0]
            lost += sum(int(((weights.float() + sign * step).bfloat16() == weights).sum()) for sign in (-1, 1))
            total += 2 * weights.numel()
    return lost / max(1, total)

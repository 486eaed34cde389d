"""Lightning's parser and trainer in commands: what a SWIRL run cannot use is said with the option of ours that does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import AcceleratorRegistry, CUDAAccelerator, MPSAccelerator
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.strategies import StrategyRegistry

from swirl_lightning.commands.parsing import Parser, UsageError
from swirl_lightning.hints import did_you_mean

_OURS = {  # an option of the trainer: (what it is unless set, what does its work here)
    "accumulate_grad_batches": (
        1,
        "a step takes data.batch_size pairs at once and splits them by model.token_budget: set these two",
    ),
    "gradient_clip_val": (None, "set model.gradient_clip, the largest norm of a gradient"),
    "gradient_clip_algorithm": (None, "model.gradient_clip clips by the norm"),
}
_ONE_OPTIMIZER = {  # callbacks that know one optimizer and no phases
    "StochasticWeightAveraging": "model.guard keeps a phase only where validation gains by it",
    "WeightAveraging": "model.guard keeps a phase only where validation gains by it",
    "EMAWeightAveraging": "model.guard keeps a phase only where validation gains by it",
    "GradientAccumulationScheduler": _OURS["accumulate_grad_batches"][1],
    "LearningRateFinder": "set lr of model.warmup_optimizer, model.fwm_optimizer and model.idm_optimizer",
    "BatchSizeFinder": "model.token_budget bounds the memory of a step",
}


class RunParser(Parser, LightningArgumentParser):
    """Lightning's parser, with mistakes in one sentence."""


def check_trainer(options: Any) -> None:
    """Refuses what works for one optimizer only, and names that nobody knows.

    Args:
        options: Options of the trainer, as they were parsed.

    Raises:
        UsageError: naming the option, and ours.
    """
    if isinstance(options, list | str | int):
        raise UsageError(f"trainer must hold options by name, got {options!r}", "trainer")
    for name, (unset, instead) in _OURS.items():
        if options[name] not in (None, unset):
            raise UsageError(
                f"trainer.{name}={options[name]!r} is for one optimizer, of which SWIRL has three: {instead}", f"trainer.{name}"
            )
    callbacks = options.callbacks or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        name = str(callback.class_path).rpartition(".")[2]
        if name in _ONE_OPTIMIZER:
            message = f"trainer.callbacks: {name} is for one optimizer, of which SWIRL has three: {_ONE_OPTIMIZER[name]}"
            raise UsageError(message, "trainer.callbacks", str(callback.class_path))
    strategies = ["auto", "fsdp", *StrategyRegistry.available_strategies()]
    for name, known in (
        ("strategy", strategies),
        ("accelerator", ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]),
    ):
        if isinstance(given := options[name], str) and given not in known:
            raise UsageError(
                f"trainer.{name}: there is no {name} {given!r}{did_you_mean(given, known)}", f"trainer.{name}", given
            )
    if options.accelerator in ("gpu", "cuda") and not (CUDAAccelerator.is_available() or MPSAccelerator.is_available()):
        message = f"trainer.accelerator: torch finds no GPU for {options.accelerator!r}; set it to auto or cpu"
        raise UsageError(message, "trainer.accelerator", options.accelerator)


@contextmanager
def one_message() -> Iterator[None]:
    """Within it, what Lightning refuses is a mistake of the user, not of the program.

    Raises:
        ValueError: with Lightning's words.
    """
    try:
        yield
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(f"trainer: {error}") from error

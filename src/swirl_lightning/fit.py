"""``swirl fit``, ``validate``, ``test`` and ``predict``: LightningCLI with a run folder and safe checkpoints."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import transformers
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

import swirl_lightning.environments  # short class names in YAML: the classes must be imported
from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.callbacks import (
    LearningWatch,
    PhaseFreezing,
    PredictionFile,
    Preemption,
    RunCheckpoint,
    RunProgress,
    StepLog,
)
from swirl_lightning.commands.ending import ending
from swirl_lightning.commands.moved import with_names_of_today
from swirl_lightning.commands.trainer import RunParser, check_trainer, one_message
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.distributed.checkpointing import AtomicCheckpointIO, check_file
from swirl_lightning.distributed.strategies import ShardedStrategy, register
from swirl_lightning.files import set_earlier_run_apart
from swirl_lightning.world_model.precision import of_trainer

assert swirl_lightning.environments
_EXPECTED_WARNINGS = (
    ".*in eval mode at the start of training",  # the module sets the mode of each model when it uses it
    ".*Using ModelCheckpoint with manual optimization",  # checkpoints are meant to hold the state after the step
    ".*does not have many workers",  # batches are Python objects that are there already
    ".*You defined a `validation_step` but have no `val_dataloader`",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    ".*The number of training batches .* is smaller than the logging interval",
    "No seed found, seed set to",  # a run without a seed says so in its configuration
    ".*Couldn't infer the batch indices",  # an epoch's batches say themselves what they hold
    ".*`max_epochs` was not set",  # the module's schedule says how many
    "LightningCLI's args parameter is intended to run from within Python",  # `swirl` hands its own arguments on
)


_NOTHING_TO_DO = re.compile(  # what Lightning tells, and nobody can act on
    r"GPU available: False|[TH]PU available|.*Tip: For seamless|Seed set to|`Trainer.fit` stopped: `max_epochs|Restor(ing|ed) "
)

DEFAULT_CALLBACKS = [
    {"class_path": "swirl_lightning.callbacks.RolloutSampler"},
    {"class_path": "swirl_lightning.callbacks.LatentActionHealth"},
    {"class_path": "swirl_lightning.callbacks.QuickEvaluation"},
    {"class_path": "swirl_lightning.callbacks.ExportModels"},
]
"""What a run does where ``trainer.callbacks`` says nothing. ``callbacks: []`` turns it off, ``callbacks+`` adds to it."""


class SaveRunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the run folder, wherever a logger has its own files."""

    @override
    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / self.config_filename, skip_none=False, overwrite=self.overwrite)


class SwirlCLI(LightningCLI):
    """LightningCLI with a run folder and safe checkpoints."""

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str,
            default="runs/default",
            help="folder of checkpoints, metrics, samples, TensorBoard",
        )
        parser.set_defaults({"trainer.callbacks": DEFAULT_CALLBACKS, "trainer.enable_model_summary": False})
        parser.add_lightning_class_args(PhaseFreezing, "freezing")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        given = self.config[self.config.subcommand].ckpt_path
        if given not in (None, "best", "last"):
            check_file(Path(given))  # Lightning looks into it next

    @property
    def settings(self) -> Any:
        """Options of the subcommand."""
        return self.config[self.subcommand] if self.subcommand else self.config

    @override
    def before_instantiate_classes(self) -> None:
        config = self.settings
        check_trainer(config.trainer)
        if config.trainer.default_root_dir is None:
            config.trainer.default_root_dir = config.run_dir
        if (asked := config.trainer.precision) is not None:
            models, config.trainer.precision = config.model.world_model, None
            models.dtype, models.compute_dtype = of_trainer(asked, models.dtype, models.compute_dtype)
        folder = Path(config.checkpoint.dirpath or Path(config.run_dir) / "checkpoints")
        config.ckpt_path = _checkpoint(folder, config.ckpt_path, str(self.subcommand))

    @override
    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        settings = self.settings.trainer
        if settings.logger in (None, True):
            kwargs.setdefault("logger", TensorBoardLogger(self.settings.run_dir, name="", version=""))
        if not settings.plugins:
            kwargs.setdefault("plugins", [AtomicCheckpointIO()])
        callbacks = (self.config_init[self.subcommand] if self.subcommand else self.config_init).trainer.callbacks or []
        callbacks = [StepLog(), LearningWatch(), *(callbacks if isinstance(callbacks, list) else [callbacks])]
        if settings.enable_progress_bar is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(RunProgress())
        kwargs.setdefault("callbacks", callbacks)
        if settings.strategy == "fsdp":  # Lightning refuses the name off CUDA, and means FSDP1
            kwargs["strategy"] = ShardedStrategy()
        with one_message():
            trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, Preemption())  # type: ignore[attr-defined]
        if self.subcommand == "predict":
            trainer.callbacks.append(PredictionFile())  # type: ignore[attr-defined]
        return trainer

    def before_fit(self) -> None:
        """Sets an earlier run in the run folder apart, unless this one goes on with it."""
        if self.settings.ckpt_path is not None or not self.trainer.is_global_zero:
            return
        run_dir, model = Path(self.settings.run_dir), self.model.world_model_config
        named = [name for name in (model.base, model.idm_base) if isinstance(name, str)]
        if (apart := set_earlier_run_apart(run_dir, named)) is not None:
            last = apart / "checkpoints" / "last.ckpt"
            rank_zero_info(f"{run_dir} held an earlier run, which is in {apart} now; --ckpt_path {last} goes on with it")

    def after_fit(self) -> None:
        """Says what the run came to, where it is, and what to do next."""
        if self.trainer.is_global_zero and not self.settings.trainer.fast_dev_run:
            print(ending(Path(self.trainer.default_root_dir), self.settings.data.as_dict().get("init_args", {})))


def run_trainer(arguments: Sequence[str]) -> SwirlCLI:
    """Runs one of LightningCLI's commands: its name and options."""
    for known in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=known)
    for part in ("pytorch", "fabric"):
        for handler in logging.getLogger(f"lightning.{part}").handlers:
            handler.addFilter(_worth_reading)
    register()
    transformers.utils.logging.disable_progress_bar()  # the run has a line of its own
    return SwirlCLI(
        SwirlModule,
        TransitionDataModule,
        parser_class=RunParser,
        parser_kwargs={"prog": "swirl"},
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=SaveRunConfig if arguments[0] == "fit" else None,  # a run's is not that of its evaluation
        save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
        args=with_names_of_today(arguments),
    )


def _worth_reading(record: logging.LogRecord) -> bool:
    return _NOTHING_TO_DO.match(record.getMessage()) is None


def _checkpoint(folder: Path, given: str | None, command: str) -> str | None:
    """What a command loads: what it was given, or the last checkpoint where a run is evaluated or started again.

    Raises:
        FileNotFoundError: if there is nothing to evaluate; untrained weights are not, by mistake.
        ValueError: if the best checkpoint is asked for, which nobody keeps.
    """
    if given == "best":
        raise ValueError("ckpt_path: a run keeps its last checkpoint, which is that of its end: give last")
    if given not in (None, "last"):
        return given
    if command == "fit":
        return "last" if given is None and _started_again() else given
    if not (last := folder / "last.ckpt").exists():
        raise FileNotFoundError(
            f"swirl {command} evaluates what a run has trained, and {last} does not exist: give the --run_dir of a run, or "
            "--ckpt_path"
        )
    return str(last)


def _started_again() -> bool:
    """Whether a scheduler runs this very command again: SLURM after a requeue, torchrun after a rank died."""
    return any(int(os.environ.get(name, "0")) > 0 for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))

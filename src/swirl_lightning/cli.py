"""The ``swirl`` command: LightningCLI for fit, validate, test and predict, and a few commands of its own."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from swirl_lightning.distributed.parent import watch_parent

COMMANDS = {  # command: (module with main(argv), one-line help)
    "record": ("swirl_lightning.commands.record", "record transitions from a real simulator"),
    "init": ("swirl_lightning.commands.init", "make a small untrained model and tokenizer for recorded transitions"),
    "codec": ("swirl_lightning.commands.codec", "train an image codec on recorded frames"),
    "extend": ("swirl_lightning.commands.extend", "give a pretrained model ids for the codes of an image codec"),
    "label": ("swirl_lightning.commands.label", "write IDM actions into an unlabelled file"),
    "forecast": ("swirl_lightning.commands.forecast", "write an FWM's next states of a split, for score"),
    "imagine": ("swirl_lightning.commands.imagine", "roll a world out from a state and actions"),
    "turns": ("swirl_lightning.commands.turns", "roll episodes out on the model's own predictions, measured turn by turn"),
    "disc-edit": ("swirl_lightning.commands.disc_edit", "DiscEdit of AURORA-Bench for an FWM"),
    "world-prediction": ("swirl_lightning.commands.world_prediction", "roll WorldPrediction-Bench's plans out, for score"),
    "convert": ("swirl_lightning.commands.convert", "convert a VQGAN checkpoint (taming layout) into an image codec"),
    "export": ("swirl_lightning.commands.export", "write FWM and IDM of a run as Hugging Face folders"),
    "compare": ("swirl_lightning.commands.compare", "put several runs into one table with intervals"),
    "score": ("swirl_lightning.commands.score", "score predictions of any model from a file"),
    "study": ("swirl_lightning.commands.study", "run the paper's comparison: methods x seeds, one report"),
}
_EXPECTED_WARNINGS = (
    ".*in eval mode at the start of training",  # the module sets the mode of each model when it uses it
    ".*Using ModelCheckpoint with manual optimization",  # checkpoints are meant to hold the state after the step
    ".*does not have many workers",  # batches are Python objects that are there already
    ".*You defined a `validation_step` but have no `val_dataloader`",
    ".*`is_gradient_checkpointing` is deprecated",  # peft asks transformers by the old name
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    ".*The number of training batches .* is smaller than the logging interval",
    "LightningCLI's args parameter is intended to run from within Python",  # `swirl` hands its own arguments on
)
TRAINER_COMMANDS = {
    "fit": "train: warm-up, then SWIRL phases",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split",
    "predict": "sample next states and actions",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``swirl``. A mistake of the user ends in one message; ``SWIRL_DEBUG=1`` shows the traceback instead.

    Args:
        argv: arguments without the program's name; default: the process's.

    Returns:
        Exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:  # ImportError: a missing extra, named
        if os.environ.get("SWIRL_DEBUG") == "1":
            raise
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "; the disk is full: free some room and run the command again (fit with --ckpt_path last)" if full else ""
        print(f"swirl: error: {error}{hint}\n(SWIRL_DEBUG=1 shows where it comes from)", file=sys.stderr)
        return 1


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    _check_configs(arguments)
    if arguments[0] in COMMANDS:
        module = importlib.import_module(COMMANDS[arguments[0]][0])
        return int(module.main(arguments[1:]))
    if arguments[0] not in TRAINER_COMMANDS:
        print(f"swirl: error: unknown command {arguments[0]!r}\n\n{_help()}", file=sys.stderr)
        return 2
    run_trainer(arguments)
    return 0


def _check_configs(arguments: Sequence[str]) -> None:
    """Names file and place of what is not YAML; jsonargparse names only the place.

    Raises:
        ValueError: for the first such file.
    """
    import yaml

    files = [argument.removeprefix("--config=") for argument in arguments if argument.startswith("--config=")]
    files += [value for name, value in pairwise(arguments) if name == "--config"]
    for file in map(Path, files):
        if file.is_file():  # what is missing, jsonargparse says
            try:
                yaml.safe_load(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ValueError(f"{file} is not YAML: {str(error).replace(chr(10), ' ')}") from error


def run_trainer(arguments: Sequence[str]) -> Any:
    """Runs ``fit``, ``validate``, ``test`` or ``predict``; imports Lightning only now, so that ``swirl --help`` is quick."""
    watch_parent()
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.utilities import rank_zero_info

    import swirl_lightning.data
    import swirl_lightning.environments  # short class names in YAML: the classes must be imported
    from swirl_lightning.algorithm.module import SwirlModule
    from swirl_lightning.callbacks import PhaseFreezing, Preemption, RunCheckpoint
    from swirl_lightning.distributed.checkpointing import AtomicCheckpointIO
    from swirl_lightning.distributed.strategies import ShardedStrategy, register
    from swirl_lightning.files import set_earlier_run_apart
    from swirl_lightning.world_model.precision import of_trainer

    class SwirlCLI(LightningCLI):
        """LightningCLI with a run folder, an epoch count that follows the phase schedule, and safe checkpoints."""

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_argument(
                "--run_dir",
                type=str,
                default="runs/default",
                help="folder of checkpoints, metrics, samples, TensorBoard",
            )
            parser.add_lightning_class_args(PhaseFreezing, "freezing")
            parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
            parser.set_defaults({"trainer.reload_dataloaders_every_n_epochs": 1, "trainer.use_distributed_sampler": False})

        def before_instantiate_classes(self) -> None:
            config = self.config[self.subcommand] if self.subcommand else self.config
            trainer = config.trainer
            if trainer.default_root_dir is None:
                trainer.default_root_dir = config.run_dir
            if trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None:
                schedule = config.model.schedule
                trainer.max_epochs = schedule.warmup_epochs + schedule.iterations * len(schedule.order)
            if trainer.precision is not None:
                models, trainer.precision, asked = config.model.world_model, None, trainer.precision
                models.dtype, models.compute_dtype = of_trainer(asked, models.dtype, models.compute_dtype)
            folder = Path(config.checkpoint.dirpath or Path(config.run_dir) / "checkpoints")
            config.ckpt_path = _checkpoint(folder, config.ckpt_path, str(self.subcommand))

        def instantiate_trainer(self, **kwargs: Any) -> Any:
            run_dir = Path(self._get(self.config, "run_dir"))
            if self._get(self.config, "trainer.logger") in (None, True):
                kwargs.setdefault("logger", TensorBoardLogger(str(run_dir), name="", version=""))
            if not self._get(self.config, "trainer.plugins"):
                kwargs.setdefault("plugins", [AtomicCheckpointIO()])
            if self._get(self.config, "trainer.strategy") == "fsdp":  # Lightning refuses the name off CUDA, and means FSDP1
                kwargs["strategy"] = ShardedStrategy()
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.insert(0, Preemption())  # type: ignore[attr-defined]
            return trainer

        def before_fit(self) -> None:
            if self._get(self.config, "ckpt_path") is not None or not self.trainer.is_global_zero:
                return
            run_dir, model = Path(self._get(self.config, "run_dir")), self.model.world_model_config
            named = [name for name in (model.base, model.idm_base) if isinstance(name, str)]
            if (apart := set_earlier_run_apart(run_dir, named)) is not None:
                last = apart / "checkpoints" / "last.ckpt"
                rank_zero_info(f"{run_dir} held an earlier run, which is in {apart} now; --ckpt_path {last} goes on with it")

    for known in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=known)
    assert swirl_lightning.environments
    register()
    return SwirlCLI(
        SwirlModule,
        swirl_lightning.data.TransitionDataModule,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=SaveConfigCallback if arguments[0] == "fit" else None,  # a run's is not that of its evaluation
        save_config_kwargs={"overwrite": True},
        args=list(arguments),
    )


def _checkpoint(folder: Path, given: str | None, command: str) -> str | None:
    """What a command loads: what it was given, or the last checkpoint where a run is evaluated or started again.

    Raises:
        FileNotFoundError: if there is nothing to evaluate; untrained weights are not, by mistake.
    """
    if command == "fit":
        return "last" if given is None and _started_again() else given
    if given not in (None, "last"):
        return given
    if not (last := folder / "last.ckpt").exists():
        raise FileNotFoundError(
            f"swirl {command} evaluates what a run has trained, and {last} does not exist: give the --run_dir of a run, or "
            "--ckpt_path"
        )
    return str(last)


def _started_again() -> bool:
    """Whether a scheduler runs this very command again: SLURM after a requeue, torchrun after a rank died."""
    return any(int(os.environ.get(name, "0")) > 0 for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))


def _help() -> str:
    rows = {**TRAINER_COMMANDS, **{name: text for name, (_, text) in COMMANDS.items()}}
    lines = [f"  {name:<10} {text}" for name, text in rows.items()]
    return "\n".join(
        [
            "usage: swirl COMMAND [options]",
            "",
            "World models from state-only data (SWIRL, arXiv:2602.06130).",
            "",
            *lines,
            "",
            "swirl COMMAND --help shows a command's options; swirl fit --config FILE --print_config what a run would use.",
        ]
    )

"""Pages of ``swirl COMMAND --help``: written beforehand, since parsers take seconds of imports to build.

``python -m swirl_lightning.commands.help_pages`` writes the pages anew (``make pages``); a test compares them with the parsers.
"""

from __future__ import annotations

import io
import os
import re
from argparse import Action, ArgumentParser
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from swirl_lightning.commands import COMMANDS, TRAINER_COMMANDS

FOLDER = Path(__file__).parent / "help"
_WIDTH = 110
_GROUPS = {  # the keys that people set
    "run": (
        *("run_dir", "ckpt_path", "seed_everything", "checkpoint.every_n_batches", "checkpoint.keep"),
        *("trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision", "trainer.callbacks"),
    ),
    "data (a file, or --data WORLD: swirl record lists the worlds)": (
        *("data.path", "data.columns", "data.state_only", "data.labelled_fraction", "data.max_labelled", "data.max_unlabelled"),
        *("data.warmup_batch_size", "data.batch_size", "data.replay_batch_size"),
    ),
    "models": (
        *("model.world_model.base", "model.world_model.storage", "model.world_model.compute_dtype"),
        *("model.world_model.gradient_checkpointing", "model.max_prompt_tokens", "model.token_budget"),
    ),
    "phases": (
        *("model.schedule.warmup_epochs", "model.schedule.iterations", "model.warmup", "model.warmup_until", "model.guard"),
        *("model.warmup_optimizer", "model.fwm_optimizer", "model.idm_optimizer", "model.gradient_clip"),
    ),
    "a role (model.fwm; model.idm has the same)": (
        *("model.fwm.group_size", "model.fwm.sampling.max_new_tokens", "model.fwm.sampling.temperature"),
        *("model.fwm.grpo.beta", "model.fwm.rewards", "model.fwm.objective"),
    ),
}
_WORDS = {  # where a help text begins otherwise, or is Lightning's
    "ckpt_path": "last goes on with the run, a file with another one",
    "seed_everything": "a number, for the same run again",
    "trainer.accelerator": "auto, cpu or gpu",
    "trainer.devices": "how many, or which",
    "trainer.strategy": "auto, ddp or fsdp",
    "trainer.precision": "bf16-mixed, bf16-true or 32-true",
    "trainer.callbacks": "what a run does beside training; callbacks+ adds one",
    "model.max_prompt_tokens": "longer prompts lose the middle of their states",
    "model.world_model.storage": "separate, shared or adapters (LoRA)",
    "model.warmup": "joint (one model on both tasks) or each",
    "model.warmup_until": "{idm: 0.97}: ends the warm-up early",
    "model.guard": "validation pairs decide whether a phase is kept",
}
_HEAD = """usage: swirl {command} --config FILE [--KEY VALUE ...]

{about}. Every key is a line of YAML or a flag. A later --config changes an earlier one, flags change both.
"""
_FOOT = """
swirl {command} --help=all shows every key, --data.help=CLASS and the like the keys of a class.
swirl {command} --config FILE --print_config shows what would be used."""


def page(command: str) -> str | None:
    """The page of a command, None where there is none (yet)."""
    file = FOLDER / f"{command}.txt"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def parser_of(command: str, module: str) -> ArgumentParser:
    """The parser of a command, as it is used.

    Args:
        command: its name.
        module: where its ``main`` is; of Lightning's four, where ``run_trainer`` is.
    """
    from jsonargparse import capture_parser

    from swirl_lightning.internals import options_of

    imported = import_module(module)
    if hasattr(imported, "main"):
        return capture_parser(imported.main, [])
    commands = next(option for option in options_of(capture_parser(imported.run_trainer, [command])) if option.choices)
    assert isinstance(commands.choices, Mapping)
    parser: ArgumentParser = commands.choices[command]
    return parser


def made(command: str, module: str, about: str) -> str:
    """A page, from the parser of its command.

    Args:
        command: its name.
        module: see :func:`parser_of`.
        about: what it does, in a line.
    """
    imported = import_module(module)
    if not hasattr(imported, "main"):
        head = _HEAD.format(command=command, about=about[0].upper() + about[1:])
        return "\n".join([head, *_keys(parser_of(command, module)), _FOOT.format(command=command)]) + "\n"
    said, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(_WIDTH)
    try:
        with redirect_stdout(said), suppress(SystemExit):
            imported.main(["--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    usage = f"usage: swirl {command} --config FILE [--KEY VALUE ...]\n\n"
    shown = re.sub(r"\Ausage: swirl \w+ \[options\] fit .*?\n\n", usage, said.getvalue(), flags=re.DOTALL)
    return re.sub(r",\s+known\s+subclasses:[^)]*\)", ")", shown)  # which ones, depends on what is imported


def _keys(parser: ArgumentParser) -> list[str]:
    """One line a key: its name, what it is by default, what it is for."""
    from jsonargparse import ArgumentParser as Jsonargparse

    from swirl_lightning.data import TransitionDataModule
    from swirl_lightning.internals import options_of

    data = Jsonargparse()
    data.add_class_arguments(TransitionDataModule, "data")
    options: dict[str, Action] = {option.dest: option for option in [*options_of(parser), *options_of(data)]}
    lines: list[str] = []
    for group, keys in _GROUPS.items():
        lines.append(f"{group}:")
        for key in keys:
            default = _default(options[key].default)
            about = _WORDS.get(key) or first_words(options[key].help, 54)
            lines.append(f"  --{key:<44}{default:<13} {about}".rstrip())
    return lines


def _default(value: Any) -> str:
    if isinstance(value, str | bool | int | float):
        return (
            str(value).lower() if isinstance(value, bool) else str(value).removeprefix("swirl_lightning.algorithm.optimizers.")
        )
    return ""


def first_words(text: str | None, width: int) -> str:
    """The beginning of a help text, as far as a line goes."""
    told = re.split(r"(?<=\w)[;:.](?:\s|$)|\s*\((?:type|required|default)", text or "")[0].replace("``", "")
    return told if len(told) <= width else told[: told.rindex(" ", 0, width - 3)] + " ..."


def commands() -> dict[str, tuple[str, str]]:
    """Every command: the module that runs it, and what it does."""
    return {name: ("swirl_lightning.fit", about) for name, about in TRAINER_COMMANDS.items()} | COMMANDS


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, (place, about) in commands().items():
        (FOLDER / f"{name}.txt").write_text(made(name, place, about), encoding="utf-8")

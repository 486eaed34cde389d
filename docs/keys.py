"""Every key of a run's YAML with its default and its line of documentation, out of signatures and docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import lightning as L
from jsonargparse import ArgumentParser, Namespace

import swirl_lightning.algorithm.proposals as proposals
import swirl_lightning.algorithm.rewards as rewards
from swirl_lightning import callbacks, environments, rollout
from swirl_lightning.algorithm.guard import GuardSettings
from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.optimizers import PhaseLR
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.distributed.strategies import ShardedStrategy
from swirl_lightning.world_model.new import NewModel

_HEAD = """# Every key

Made from the signatures, so it is what the code says. A key is a place in YAML (`model: {{fwm: {{group_size: 8}}}}`) and
a flag (`--model.fwm.group_size 8`) alike. `swirl fit --config FILE --print_config` shows what a run would use.

## The run

| key | default | what it is |
|---|---|---|
| `seed_everything` | `True` | seed of Python, numpy and torch; true draws one |
| `run_dir` | `runs/default` | folder of checkpoints, metrics, samples, TensorBoard |
| `ckpt_path` | none | checkpoint to go on from; `last` is the run's newest |
| `defaults` | none | configurations that this file builds on, relative to it |
"""


def rows(kind: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and help of each option of a class.

    Args:
        kind: the class.
        prefix: what stands before its keys.
    """
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "it")
    for action in parser._actions:
        of_a_group = "configuration file" in (action.help or "")  # its own keys follow
        if action.dest.startswith("it.") and not action.dest.endswith(".help") and not of_a_group:
            yield prefix + action.dest.removeprefix("it."), _value(action.default), _line(action.help)


def _value(default: Any) -> str:
    if isinstance(default, Namespace):
        default = default.as_dict()
    if isinstance(default, dict) and "class_path" in default:
        default = default["class_path"].rpartition(".")[2]
    if callable(default):
        default = default.__name__
    shown = str(default)
    return "" if default is None or "==" in shown else f"`{shown}`"


def _line(text: str | None) -> str:
    text = re.sub(r"\s+", " ", text or "").strip()
    return "" if text == "==SUPPRESS==" else re.sub(r"``", "`", text).replace("|", "\\|")


def table(kind: Any, prefix: str, leave_out: str = "") -> str:
    """A Markdown table of a class's options.

    Args:
        kind: the class.
        prefix: what stands before its keys.
        leave_out: keys that begin so are those of another table.
    """
    kept = [row for row in rows(kind, prefix) if not (leave_out and row[0].startswith(leave_out))]
    lines = [f"| `{key}` | {default} | {text} |" for key, default, text in kept]
    return "\n".join(["| key | default | what it is |", "|---|---|---|", *lines])


def _classes(module: Any, base: type | None = None) -> list[type]:
    names = getattr(module, "__all__", dir(module))
    found = [kind for kind in (getattr(module, name) for name in sorted(names)) if isinstance(kind, type)]
    return [kind for kind in found if base is None or (issubclass(kind, base) and kind is not base)]


def page() -> str:
    """The whole page, Markdown."""
    parts = [_HEAD.replace("{{", "{").replace("}}", "}")]
    parts += [f"## `model`\n\nKeys of `model.idm` are those of `model.fwm`.\n\n{table(SwirlModule, 'model.', 'model.idm.')}"]
    parts += [f"## `model.world_model.base`, a new model\n\n{table(NewModel, 'model.world_model.base.')}"]
    parts += [f"## `model.guard`\n\n{table(GuardSettings, 'model.guard.')}"]
    parts += [f"## `data.init_args`\n\n{table(TransitionDataModule, 'data.init_args.')}"]
    parts += [f"## `trainer`, Lightning's\n\n{table(L.Trainer, 'trainer.')}"]
    parts += ["## Classes by `class_path`\n\nTheir options stand under `init_args`. Short names do for those of this package."]
    parts += [
        "### Learning rates, strategies and engines",
        *map(_section, (PhaseLR, ShardedStrategy, *_classes(rollout, rollout.RolloutEngine))),
    ]
    parts += ["### Callbacks", *map(_section, _classes(callbacks, L.Callback))]
    parts += ["### Rewards", *map(_section, _classes(rewards, rewards.Reward))]
    parts += ["### Proposals of candidate actions", *map(_section, _classes(proposals, proposals.Proposals))]
    parts += ["### Recorders of worlds", *map(_section, _classes(environments, environments.WorldDataModule))]
    return "\n\n".join(parts) + "\n"


def _section(kind: type) -> str:
    about = (kind.__doc__ or "").partition("\n")[0].replace("``", "`")
    return f"#### `{kind.__name__}`\n\n{about}\n\n{table(kind, '')}"

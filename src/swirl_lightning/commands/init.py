"""``swirl init``: a small untrained causal LM, its tokenizer trained on the training split of recorded transitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path

from jsonargparse import ActionConfigFile

from swirl_lightning.commands.options import named_as, refuse_existing
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.data.datamodule import TransitionDataModule
from swirl_lightning.world_model.new import NewModel

_OF_DATA = (  # decide what training text is
    *("columns", "state_only", "state_only_columns", "action_pattern", "stride", "min_change", "video"),
    *("labelled_fraction", "val_fraction", "test_fraction", "seed"),
)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = Parser(
        prog="swirl init",
        description="Write a model folder without weights, which swirl fit initialises at random. Its tokenizer learns from "
        "the training split alone: labelled transitions, and state-only pairs without their actions. swirl fit makes such a "
        "model by itself where model.world_model.base says what it is to be.",
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML with these options")
    parser.add_argument("--data", required=True, help="transitions, as data.path of swirl fit")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--overwrite", type=bool, default=False, help="write over a model that is there already")
    parser.add_class_arguments(NewModel, None)
    parser.add_class_arguments(TransitionDataModule, None, skip={*signature(TransitionDataModule).parameters} - {*_OF_DATA})
    values = parser.parse_args(list(argv)).as_dict()
    new = NewModel(**{field.name: values[field.name] for field in fields(NewModel)})
    if (values["out"] / "config.json").exists():
        refuse_existing(values["out"], overwrite=values["overwrite"])
    data = TransitionDataModule(values["data"], **{name: values[name] for name in _OF_DATA})
    with named_as(path="--data"):
        data.setup("init")
    ids = new.make([*data.labelled, *data.unlabelled], values["out"])
    print(f"{values['out']}: {new.model_type}, {new.layers} layers of width {new.hidden_size}, {ids} token ids, no weights yet")
    return 0

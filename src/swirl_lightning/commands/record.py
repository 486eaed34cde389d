"""``swirl record``: transitions from a real simulator, as Parquet with a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from jsonargparse import ActionConfigFile

from swirl_lightning.commands.overlays import read_config
from swirl_lightning.commands.parsing import Parser, UsageError
from swirl_lightning.data.datamodule import TransitionDataModule
from swirl_lightning.environments import WorldDataModule
from swirl_lightning.environments.recording.record import Splits, record
from swirl_lightning.environments.registry import ENVIRONMENTS, load_recorder
from swirl_lightning.hints import did_you_mean

_USAGE = """usage: swirl record WORLD --out DIR [options]

worlds:
{worlds}
  module:Class     a recorder of your own

swirl record WORLD --help shows its options. swirl fit records what it needs by itself; swirl record --config FILE does that
alone, for a configuration of swirl fit whose data are a world."""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    arguments = list(argv)
    if arguments and arguments[0].partition("=")[0] == "--config":
        return _record_for_run(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        rows = "\n".join(f"  {name:<16} {world.help}" for name, world in ENVIRONMENTS.items())
        print(_USAGE.format(worlds=rows))
        return 0
    if arguments[0] not in ENVIRONMENTS and ":" not in arguments[0]:
        raise UsageError(f"record: there is no world {arguments[0]!r}{did_you_mean(arguments[0], ENVIRONMENTS)}")
    kind = load_recorder(arguments[0])
    parser = Parser(prog=f"swirl record {arguments[0]}", description=(kind.__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", action=ActionConfigFile, help="YAML with these options")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_class_arguments(Splits, None)
    parser.add_class_arguments(kind, "env")
    values = parser.instantiate(parser.parse_args(arguments[1:]))
    counts = record(values.env, values.out, Splits(values.val_fraction, values.test_fraction, values.split_seed))
    noted = {**counts, **getattr(values.env, "counts", {})}  # a recorder that leaves things out counts them
    width = max(map(len, noted))
    print("\n".join(f"{name:<{width}} {count}" for name, count in sorted(noted.items())))
    print(f"written to {values.out}")
    return 0


def _record_for_run(arguments: Sequence[str]) -> int:
    """Records what a configuration of ``swirl fit`` needs and does not find."""
    given = arguments[0].partition("=")[2] or "".join(arguments[1:2])
    options = arguments[1:] if "=" in arguments[0] else arguments[2:]
    config = read_config(given)
    if "data" not in config:
        raise ValueError("record: the configuration has no data")
    parser = Parser(prog="swirl record --config FILE")
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_subclass_arguments(TransitionDataModule, "data", required=True)
    chosen = yaml.safe_dump({"data": config["data"]})
    data = parser.instantiate(parser.parse_args(["--config", chosen, *options])).data
    if not isinstance(data, WorldDataModule):
        raise ValueError(f"record: {type(data).__name__} reads {data.path}; it is no world that could be recorded")
    data.prepare_data()
    print(f"recorded in {data.path}")
    return 0

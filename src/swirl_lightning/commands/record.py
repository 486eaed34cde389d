"""``swirl record WORLD``: transitions from a real simulator, as Parquet with a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentParser

from swirl_lightning.environments.recording.record import Splits, record
from swirl_lightning.environments.registry import ENVIRONMENTS, load_recorder


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    arguments = list(argv)
    if not arguments or (arguments[0] not in ENVIRONMENTS and ":" not in arguments[0]):
        rows = "\n".join(f"  {name:<16} {world.help}" for name, world in ENVIRONMENTS.items())
        print(
            f"usage: swirl record WORLD --out DIR [options]\n\nworlds:\n{rows}\n  module:Class     a recorder of your own"
            "\n\nswirl record WORLD --help shows its options. swirl fit records what it needs by itself (data.class_path)."
        )
        return 0 if not arguments or arguments[0] in ("-h", "--help") else 2
    kind = load_recorder(arguments[0])
    parser = ArgumentParser(prog=f"swirl record {arguments[0]}", description=(kind.__doc__ or "").partition("\n")[0])
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

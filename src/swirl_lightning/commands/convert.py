"""``swirl convert``: checkpoints of other projects as folders that this one reads, and data as other files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from swirl_lightning.commands.options import Columns, named_as, refuse_existing
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.commands.rewriting import Form, Rewriting
from swirl_lightning.conversion.gguf import convert_gguf
from swirl_lightning.conversion.taming import convert_taming


def convert_data(
    data: str | list[str],
    out: Path,
    columns: Columns | None = None,
    action_pattern: str | None = None,
    form: Form = "pairs",
    overwrite: bool = False,
) -> Path:
    """Write data of any shape as pairs, or their rows as another kind of file.

    Args:
        data: As `swirl fit` reads them: pairs, steps, trajectories or chats; a file, glob, folder, saved data set, hub:...
        out: What to write, by its ending: .jsonl, .json, .csv, .tsv (also .gz, .zst, .bz2), .parquet, or none for a folder that
            datasets.load_from_disk reads.
        columns: Names of your columns, e.g. ``{state: before, next_state: after}``.
        action_pattern: Regular expression with one group: the action, within what the column of actions holds.
        form: ``pairs``: state, next_state, action, context, episode, step, split; or ``rows`` as they came.
        overwrite: Write over what is there.

    Returns:
        What was written.
    """
    refuse_existing(out, overwrite=overwrite)
    with named_as(path="--data", state_only="another call"):
        rewriting = Rewriting(data, out, columns, action_pattern, form)
    count = rewriting.write(np.zeros(0, np.int64), [], [])
    print(f"{count:,} {form}")
    return out


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    formats: dict[str, Any] = {"vqgan": convert_taming, "gguf": convert_gguf, "data": convert_data}
    folder = auto_cli(formats, prog="swirl convert", args=list(argv), as_positional=False, parser_class=Parser)
    print(f"written to {folder}")
    return 0

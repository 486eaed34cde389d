"""``swirl compare``: several runs in one table, runs that differ only by seed averaged."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import auto_cli

from swirl_lightning.commands.report import Measures, as_markdown, run_rows, summarise


def compare(runs: list[Path], split: str = "test", out: Path | None = None) -> None:
    """Print one table of several runs.

    Folders whose names differ only in a trailing ``-seed-N`` or in a ``seed-N`` parent folder are averaged, with 95 %
    intervals.

    Args:
        runs: run folders.
        split: split to report.
        out: also write the rows as JSON.
    """
    rows: dict[str, list[Measures]] = {}
    for run in runs:
        name = re.sub(r"[-_]?seed[-_]?\d+$", "", run.name) or run.name
        for row, measures in run_rows(run, name, split).items():
            label = row if row.startswith(name) else f"{name}/{row}"
            rows.setdefault(label, []).append(measures)
    table = [summarise(name, measures, None) for name, measures in rows.items()]
    print(as_markdown(table))
    if out is not None:
        out.write_text(json.dumps({"rows": table, "split": split}, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(compare, args=list(argv), as_positional=True)
    return 0

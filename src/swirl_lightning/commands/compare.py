"""``swirl compare``: several runs in one table, runs that differ only by seed averaged."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from swirl_lightning.commands.parsing import Parser
from swirl_lightning.commands.report import Measures, as_markdown, run_rows, summarise


def compare(runs: Sequence[Path], split: str = "test", out: Path | None = None) -> None:
    """Print one table of several runs.

    Runs that share a method's name are averaged, with 95 % intervals. The name is the folder's, less a trailing
    ``-seed-N``; a folder called ``seed-N`` takes its parent's name (``swirl/seed-0``, and ``seed-0/swirl`` are both fine).

    Args:
        runs: Run folders.
        split: Split to report.
        out: Also write the rows as JSON.

    Raises:
        FileNotFoundError: if a run has no metrics.
        ValueError: if a run is named twice, or was not evaluated on the split.
    """
    seen: dict[Path, Path] = {}
    for run in runs:
        if (first := seen.setdefault(run.resolve(), run)) is not run:
            raise ValueError(f"compare: {first} is given twice; it would count as two seeds")
    rows: dict[str, list[Measures]] = {}
    for run in runs:
        name = re.sub(r"[-_]?seed[-_]?\d+$", "", run.name) or run.resolve().parent.name
        for row, measures in run_rows(run, name, split).items():
            label = row if row.startswith(name) else f"{name}/{row}"
            rows.setdefault(label, []).append(measures)
    table = [summarise(name, measures, None) for name, measures in rows.items()]
    print(as_markdown(table))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"rows": table, "split": split}, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = Parser(
        prog="swirl compare",
        description="Put several runs into one table; runs that differ only by seed are averaged, with 95 % intervals.",
    )
    parser.add_argument("runs", nargs="+", help="run folders, e.g. runs/a-seed-0 runs/a-seed-1 (or one YAML list)")
    parser.add_argument("--split", type=str, default="test", help="split to report (default: test)")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    values = parser.parse_args(list(argv))
    runs = values.runs
    if len(runs) == 1 and runs[0].startswith("["):
        runs = yaml.safe_load(runs[0])
    compare([Path(run) for run in runs], values.split, values.out)
    return 0

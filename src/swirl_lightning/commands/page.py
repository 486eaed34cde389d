"""``swirl report``: a run as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jsonargparse import auto_cli

from swirl_lightning.commands.curves import draw
from swirl_lightning.commands.ending import cells, phase_rows
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.commands.report import records, run_costs
from swirl_lightning.files import HEALTH, METRICS, SAMPLES, STEPS, put_text

_MOST_BYTES = 20_000_000  # of pictures in one page
_HEALTH = ("label", "accuracy", "unique_share", "length_ratio", "code_gap", "agreement", "agreed_accuracy")
_TYPES = {".png": "image/png", ".gif": "image/gif"}


def report(run: Path, out: Path | None = None, samples: int = 2) -> None:
    """Write one HTML page about a run: tables, curves, samples with rewards, pictures, options.

    The page holds all of it and loads nothing; curves need the extra `plot`.

    Args:
        run: Run folder.
        out: File to write; report.html in the run folder unless given.
        samples: Groups shown of each phase, the last ones.
    """
    out = out or run / "report.html"
    put_text(out, page(run, samples))
    print(f"wrote {out}: open it in a browser")


def page(run: Path, samples: int = 2) -> str:
    """The page as text.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ImportError: without matplotlib, where there are curves.
    """
    steps, measured = records(run / STEPS), records(run / METRICS)
    if not steps and not measured:
        raise FileNotFoundError(f"{run} is not the folder of a `swirl fit` run: it has neither {METRICS} nor {STEPS}")
    splits = {}
    for split in ("val", "test"):
        if rows := phase_rows(run, split):
            splits[split] = {"transitions": rows[0]["transitions"], "cells": cells(rows)}
    first = next(iter(splits), "val")
    greedy = [r for r in measured if r["split"] == first and r["decoding"] == "greedy" and r["label"] != "test"]
    pictures, left_out = _pictures(run)
    config = run / "config.yaml"
    options = config.read_text(encoding="utf-8") if config.is_file() else ""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("swirl_lightning", "commands"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.jinja").render(
        name=str(run),
        facts=[*_facts(run, options), *([f"{left_out} pictures left out: the page would be too large"] if left_out else [])],
        splits=splits,
        curves=draw(steps, greedy),
        health=_health(records(run / HEALTH)),
        samples=_last_of_each_phase(records(run / SAMPLES), samples),
        pictures=pictures,
        config=options,
    )


def _facts(run: Path, options: str) -> list[str]:
    """What was trained on what, and what it took."""
    config: Mapping[str, Any] = yaml.safe_load(options) or {}
    base = config.get("model", {}).get("world_model", {}).get("base")
    data = config.get("data", {}).get("init_args", {}).get("path")
    costs = run_costs(run)
    return [
        *([f"base: {base if isinstance(base, str) else 'from scratch'}"] if base else []),
        *([f"data: {data}"] if data else []),
        *([f"{costs['seconds'] / 60:.1f} minutes"] if "seconds" in costs else []),
        *([f"{costs['generated_tokens']:,.0f} tokens sampled in training"] if "generated_tokens" in costs else []),
    ]


def _health(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    names = [name for name in _HEALTH if any(name in row for row in rows)]
    shown = [[row["label"], *(f"{row[name]:z.3f}" if name in row else "" for name in names[1:])] for row in rows]
    return [["", *(name.replace("_", " ") for name in names[1:])], *shown]


def _last_of_each_phase(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    by_phase: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_phase.setdefault((row["epoch"], row["phase"]), []).append(row)
    return [row for group in by_phase.values() for row in group[len(group) - min(count, len(group)) :]]


def _pictures(run: Path) -> tuple[dict[str, str], int]:
    """Pictures as data URLs, by name, and how many had no room."""
    made: dict[str, str] = {}
    room, files = _MOST_BYTES, sorted(file for file in run.glob("pictures/*") if file.suffix in _TYPES)
    for file in files:
        data = file.read_bytes()
        if (room := room - len(data)) < 0:
            break
        made[file.stem] = f"data:{_TYPES[file.suffix]};base64,{base64.b64encode(data).decode()}"
    return made, len(files) - len(made)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(report, prog="swirl report", args=list(argv), as_positional=True, parser_class=Parser)
    return 0

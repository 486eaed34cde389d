"""What ``swirl fit`` says at its end: a table, the files, and what to do with them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from swirl_lightning.commands.forecast import forecast
from swirl_lightning.commands.report import Measures, merge, records
from swirl_lightning.files import HEALTH, METRICS, SAMPLES, STEPS

_COLUMNS = {  # title: (role, measure)
    "FWM exact": ("fwm", "exact_match"),
    "FWM sampled": ("fwm", "sampled/exact_match"),
    "FWM log P": ("fwm", "logprob"),
    "IDM exact": ("idm", "exact_match"),
    "IDM sampled": ("idm", "sampled/exact_match"),
    "IDM log Q": ("idm", "logprob"),
}
_FILES = {  # in the order in which they are looked at
    METRICS: "measures after the warm-up and every phase",
    SAMPLES: "groups of rollouts with their rewards, to be read",
    HEALTH: "are the latent actions still actions?",
    STEPS: "values of the steps, as loggers get them",
    "pictures": "states and predictions",
    "export/last/fwm": "the forward world model, a Hugging Face folder",
    "export/last/idm": "the inverse dynamics model",
    "checkpoints/last.ckpt": "what --ckpt_path last goes on from",
    "config.yaml": "every option of the run",
}
_SFT = ("start", "warmup")  # labels of what the phases start from


def phase_rows(run_dir: Path, split: str) -> list[dict[str, Any]]:
    """A row for what the phases start from (``SFT``) and one for every phase, in order, with the FWM's gain over SFT.

    Args:
        run_dir: Folder of the run.
        split: Which evaluations.

    Returns:
        Rows with ``method``, measures of ``fwm`` and ``idm`` (sampled ones with the prefix ``sampled/``), ``gain`` in exact
        matches (None where there is none) and the number of ``transitions``.
    """
    rows: dict[str, Measures] = {}
    transitions: dict[str, int] = {}
    for record in records(run_dir / METRICS):
        if record["split"] == split and record["label"] != "test":  # that one is of `swirl test`
            name = "SFT" if record["label"] in _SFT else record["label"]
            merge(rows, name, record, "" if record["decoding"] == "greedy" else f"{record['decoding']}/")
            transitions[name] = record["transitions"]
    sft = rows.get("SFT", {"fwm": {}})["fwm"].get("exact_match", 0.0)
    gains = {name: row["fwm"]["exact_match"] / sft - 1 for name, row in rows.items() if sft > 0 and name != "SFT"}
    return [{"method": name, **row, "gain": gains.get(name), "transitions": transitions[name]} for name, row in rows.items()]


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A table of :func:`phase_rows`, with a header; gains are relative, in exact matches."""
    table = [["", *_COLUMNS, "FWM gain"]]
    for row in rows:
        values = [row[role].get(measure) for role, measure in _COLUMNS.values()]
        gain = "" if row["gain"] is None else f"{row['gain']:+.1%}"
        table.append([row["method"], *("" if value is None else f"{value:z.3f}" for value in values), gain])
    return table


def aligned(table: Sequence[Sequence[str]]) -> str:
    """A table in columns, the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in table
    )


def ending(run_dir: Path, data: Mapping[str, Any]) -> str:
    """What a finished run came to, where it is, and what to do next.

    Args:
        run_dir: Folder of the run.
        data: Options of its data.
    """
    parts = []
    for split in ("val", "test"):
        if rows := phase_rows(run_dir, split):
            title = (
                f"{split}: {rows[0]['transitions']:,} transitions, exact matches (greedy, sampled), log-probabilities in nats"
            )
            parts.append(f"{title}\n{aligned(cells(rows))}")
    if not parts:
        parts.append("not evaluated: no BenchmarkEvaluation in trainer.callbacks, or no labelled transitions held out")
    files = [[str(run_dir / name), text] for name, text in _FILES.items() if (run_dir / name).exists()]
    width = max((len(name) for name, _ in files), default=0)
    parts.append("\n".join(["files:", *(f"  {name.ljust(width)}  {text}" for name, text in files)]))
    parts.append("\n".join(["next:", *(f"  {command}" for command in next_commands(run_dir, data))]))
    return "\n" + "\n\n".join(parts)


def next_commands(run_dir: Path, data: Mapping[str, Any]) -> list[str]:
    """Commands that go on from here: look at the run, ask the FWM, have the IDM label data.

    Args:
        run_dir: Folder of the run.
        data: Options of its data.
    """
    last = run_dir / "export" / "last"
    known = signature(forecast).parameters
    options = [
        f" --{name}={shlex.quote(json.dumps(data[name]) if isinstance(data[name], dict) else str(data[name]))}"
        for name in ("columns", "action_pattern", "val_fraction", "test_fraction", "seed")
        if data.get(name, known[name].default) != known[name].default
    ]
    path = data.get("path")
    source = shlex.quote(path) if isinstance(path, str) else "DATA"
    commands = [
        f"swirl report {run_dir}",
        *([] if last.is_dir() else [f"swirl export {run_dir} {last}"]),
        f"swirl forecast {source} {last / 'fwm'} {run_dir / 'predictions.jsonl'}{''.join(options)}",
        f"swirl label STATES.jsonl {last / 'idm'} {run_dir / 'labelled.jsonl'}",
    ]
    return commands[:3]

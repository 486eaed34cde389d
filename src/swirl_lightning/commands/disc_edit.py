"""``swirl disc-edit``: DiscEdit of AURORA-Bench for an exported FWM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from jsonargparse import auto_cli
from tqdm import tqdm

from swirl_lightning.codecs.image_pixels import load_rgb
from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.environments.visual.image_records import read_records, text_field
from swirl_lightning.evaluation.disc_edit import Choice, disc_edit
from swirl_lightning.types import Role

SHOWN = ("sampled", "likelihood", "changed_pos", "changed_neg")


def read_choices(root: Path) -> list[Choice]:
    """Records ``{input, pos, neg}`` of ``disc_edit_data/<task>/valid.json``, image paths relative to the root.

    Raises:
        FileNotFoundError: if there is no such file, or no such image.
        DataError: naming file, record and field of what is wrong.
    """
    files = sorted(root.glob("disc_edit_data/*/valid.json"))
    if not files:
        raise FileNotFoundError(f"disc-edit: no disc_edit_data/<task>/valid.json below {str(root)!r}")
    choices = []
    for file in files:
        for number, record in read_records(file):
            place = f"{file}, record {number}"
            path = root / text_field(record, "input", place)
            if not path.is_file():
                raise FileNotFoundError(f"{place}: there is no file {path}")
            image = path.read_bytes()
            load_rgb(image, where=place)
            choices.append(Choice(image, text_field(record, "pos", place), text_field(record, "neg", place), file.parent.name))
    return choices


def run(
    root: Path,
    fwm: Path,
    samples: int = 4,
    temperature: float = 0.75,
    top_p: float = 0.96,
    batch_size: int = 16,
    limit: int | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Ask whether an FWM changes an image less under an edit that changes little than under one that changes something.

    Args:
        root: AURORA's folder, with `disc_edit_data/` and the images.
        fwm: FWM folder written by `swirl export`.
        samples: Drawn under each edit.
        temperature: Temperature of the samples.
        top_p: Top-p of the samples.
        batch_size: Records at once.
        limit: At most so many records of a task.
        seed: Seed of the samples.
        out: Also write the measures of every record as JSON.
    """
    inference = inference_from_folders(fwm, None)
    by_task: dict[str, list[Choice]] = {}
    for choice in read_choices(root):
        by_task.setdefault(choice.task, []).append(choice)
    params = replace(inference.sampling[Role.FWM], temperature=temperature, top_p=top_p)
    chosen = {task: choices[:limit] for task, choices in by_task.items()}
    report: dict[str, list[dict[str, float]]] = {}
    with tqdm(total=sum(map(len, chosen.values())), desc="disc-edit", unit="record") as bar:
        for task, choices in chosen.items():
            report[task] = disc_edit(
                inference, choices, samples=samples, params=params, seed=seed, batch_size=batch_size, progress=bar.update
            )
    print("| task | records | " + " | ".join(SHOWN) + " |\n|---|---:" + "|---:" * len(SHOWN) + "|")
    rows = [*report.items(), *([("all", [row for part in report.values() for row in part])] if len(report) > 1 else [])]
    for task, results in rows:
        print(
            f"| {task} | {len(results)} | " + " | ".join(f"{mean(row[name] for row in results):.4f}" for name in SHOWN) + " |"
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"fwm": str(fwm), "samples": samples, "tasks": report}, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(run, prog="swirl disc-edit", args=list(argv), as_positional=True, parser_class=Parser)
    return 0

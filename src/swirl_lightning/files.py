"""Files that are whole or not there, also after a kill or a power cut, and the reports in the folder of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

METRICS, HEALTH, SAMPLES, STEPS = "metrics.jsonl", "health.jsonl", "samples.jsonl", "steps.jsonl"
_REPORTS = (METRICS, HEALTH, SAMPLES, STEPS)
_OUTPUTS = (*_REPORTS, "checkpoints", "pictures", "report.html", "export", "model", "config.yaml", "hparams.yaml")
_OUTPUT_PATTERNS = ("events.out.tfevents.*", "nonfinite-*.json", "hpc_ckpt_*.ckpt")


def put(temporary: Path, target: Path) -> None:
    """Moves a finished file over its target; the target is the old or the new file at any instant, and on disk afterwards.

    Args:
        temporary: the file, in the target's folder.
        target: its name.
    """
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Brings a folder's names to disk, where the file system knows how to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        with suppress(OSError):  # some network file systems sync no folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_temporaries(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        put(temporary, path)
    finally:
        discard(temporary)


def discard(temporary: Path) -> None:
    """Removes what could not be finished; hides no error of writing it behind one of its own (a read-only file system)."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def clear_temporaries(folder: Path, name: str = "*") -> None:
    """Removes what a killed process left half written in a folder, of files called ``name``."""
    for file in folder.glob(f".{name}.*.tmp"):
        discard(file)


# ---------------------------------------------------------------------- reports of a run


def append_row(path: Path, row: Mapping[str, Any], key: Sequence[str]) -> None:
    """Appends a JSON line, atomically; a line with the same key fields, from before a crash, is replaced."""
    lines: list[str] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            old = json.loads(line)
            if any(old.get(field) != row.get(field) for field in key):
                lines.append(line)
    lines.append(json.dumps(row, default=float))
    put_text(path, "\n".join(lines) + "\n")


def drop_later(path: Path, global_step: int) -> None:
    """Drops the lines of later steps than a run resumes at, which it takes again, and a line that a kill cut short."""
    if not path.exists():
        return
    text, kept = path.read_text(encoding="utf-8"), []
    for line in text.splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line).get("global_step", 0) <= global_step:
            kept.append(line)
    if "".join(kept) != text:
        put_text(path, "".join(kept))


def set_earlier_run_apart(run_dir: Path, in_use: Sequence[str | None] = ()) -> Path | None:
    """Moves what an earlier run left in a run folder into ``earlier-N`` there: a run that begins anew mixes with nothing.

    Args:
        run_dir: the run folder.
        in_use: models that the new run loads; a folder that holds one stays where it is.

    Returns:
        Where to; None where there was no run.
    """
    if not any((run_dir / name).exists() for name in _REPORTS) and not any(run_dir.glob("checkpoints/*")):
        return None
    number = 1
    while (apart := run_dir / f"earlier-{number}").exists():
        number += 1
    used = [Path(name).resolve() for name in in_use if name is not None]
    outputs = [run_dir / name for name in _OUTPUTS]
    moved = [path for path in outputs if not any(model.is_relative_to(path.resolve()) for model in used)]
    moved += [file for pattern in _OUTPUT_PATTERNS for file in run_dir.glob(pattern)]
    apart.mkdir()
    for path in moved:
        if path.exists():
            path.rename(apart / path.name)
    return apart

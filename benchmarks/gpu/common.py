"""What the parts share: where they run, and a small world of words to run on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))  # the CPU-sized benchmarks import each other as scripts

ROOT = Path(__file__).parents[2]


class SkippedError(Exception):
    """A part that cannot be measured here, and why."""


def on_gpu() -> bool:
    """Whether a GPU is at hand."""
    return torch.cuda.is_available()


def device_name() -> str:
    """The GPU, or the CPU's architecture."""
    if not on_gpu():
        import platform

        return f"CPU ({platform.machine()})"
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"


def command(arguments: list[str], minutes: float) -> None:
    """Runs a program.

    Raises:
        RuntimeError: with the end of what it printed, if it fails.
    """
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60 * minutes, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-3000:]}")


def fit(file: Path, settings: dict[str, Any], *more: str, apart: bool) -> None:
    """Runs ``swirl fit``, in a process of its own or here.

    Raises:
        RuntimeError: if it fails.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    arguments = ["fit", "--config", str(file), *more]
    if apart:
        command([sys.executable, "-m", "swirl_lightning", *arguments], minutes=8)
        return
    from swirl_lightning.cli import main

    if main(arguments):
        raise RuntimeError(f"swirl {' '.join(arguments)} failed")

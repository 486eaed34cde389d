"""The self-check of every architecture on this device: which path it takes, and how closely it agrees with the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.common import on_gpu
from swirl_lightning.scoring.scorer import scoring_path
from tests.models import ARCHITECTURES, build


def measure(place: Path, tiny: bool) -> list[dict[str, Any]]:
    """Path of scoring, or the reason why there is none, by architecture and type."""
    device = "cuda" if on_gpu() else "cpu"
    dtypes = (torch.float32, torch.bfloat16) if on_gpu() else (torch.float32,)
    found = []
    for name in list(ARCHITECTURES)[: 2 if tiny else None]:
        for dtype in dtypes:
            row = {"architecture": name, "dtype": str(dtype).removeprefix("torch."), "path": "", "refused": ""}
            try:
                row["path"] = str(scoring_path(build(name).to(device, dtype)))
            except ValueError as error:
                row["refused"] = str(error)
            found.append(row)
    return found


def table(results: list[dict[str, Any]]) -> str:
    """A line for every architecture and type."""
    lines = ["| architecture | type | scoring | refused, why |", "|---|---|---|---|"]
    lines += [f"| {row['architecture']} | {row['dtype']} | {row['path']} | {row['refused']} |" for row in results]
    return "\n".join(lines)

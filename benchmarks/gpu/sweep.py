"""The self-check of every architecture on this device: which paths it takes, or why it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.common import on_gpu
from swirl_lightning.rollout.self_check import rollout_path
from swirl_lightning.scoring.scorer import prefer_shared_prefix
from swirl_lightning.scoring.self_check import scoring_path
from tests.architectures import families


def measure(place: Path, tiny: bool) -> list[dict[str, Any]]:
    """Paths of scoring and rollouts, or the reason why there is none, by architecture and type."""
    device = "cuda" if on_gpu() else "cpu"
    dtypes = (torch.float32, torch.bfloat16) if on_gpu() else (torch.float32,)
    names = ("llama", "gemma3_text", "granite") if tiny else tuple(families.FAMILIES)
    return [_found(name, device, dtype) for name in names for dtype in dtypes]


def _found(name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    row = {"architecture": name, "dtype": str(dtype).removeprefix("torch."), "scoring": "", "rollouts": "", "refused": ""}
    try:
        model = families.tiny(name).to(device, dtype)
        prefer_shared_prefix(model)
        row["scoring"] = str(scoring_path(model, gradients=True))
        row["rollouts"] = str(rollout_path(model))
    except (ValueError, ImportError, RuntimeError) as error:  # what stops one architecture is what the sweep is for
        row["refused"] = str(error).split("\n")[0]
    return row


def table(results: list[dict[str, Any]]) -> str:
    """A line for every architecture and type."""
    lines = ["| architecture | type | scoring | rollouts | refused, why |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row.values())} |" for row in results]
    return "\n".join(lines)

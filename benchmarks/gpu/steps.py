"""A whole SWIRL step against TRL's GRPOTrainer, in bf16, at 0.5B and 3B with the paper's shapes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.common import ROOT, command

PEER = ROOT / ".venv-trl" / "bin" / "python"
RUNS = {"0.5b": ("phase2-text-observation", "phase1-text", "phase1-image"), "3b": ("phase2-text-observation", "phase1-image")}
GROUPS = 8


def measure(place: Path, tiny: bool) -> list[dict[str, Any]]:
    """One result of ``swirl_step.py`` for every size and shape; results that lie in ``place`` are kept."""
    if tiny:
        return [_here(place)]
    results = []
    for size, shapes in RUNS.items():
        for shape in shapes:
            file = place / f"{size}-{shape}.json"
            if not file.is_file():
                arguments = ["--size", size, "--shape", shape, "--groups", str(GROUPS), "--rounds", "3", "--json", str(file)]
                arguments += [
                    "--peers",
                    *(("plain", "--peer-micro-batch", "16", "--peer-checkpointing") if PEER.is_file() else ()),
                ]
                command([sys.executable, "benchmarks/swirl_step.py", *arguments], minutes=4)
            results.append(json.loads(file.read_text(encoding="utf-8")))
    return results


def _here(place: Path) -> dict[str, Any]:
    """Our side in this process, at the smallest size."""
    import _model
    import _ours
    import _shapes

    size, shape = _shapes.SIZES["tiny"], _shapes.SHAPES["smoke"]
    _model.write(place / "models", size)
    steps: list[dict[str, Any]] = []
    _ours.fit(shape, size, place / "models", 2, _ours.Paced(size, lambda: None, steps.append), token_budget=4096)
    return {"shape": "smoke", "size": "tiny", "groups": shape.pairs, "ours": steps[-1]}


def table(results: list[dict[str, Any]]) -> str:
    """Seconds and memory of both sides."""
    lines = ["| size | shape | ours, s | TRL, s | time | GPU memory, ours | TRL |", "|---|---|---|---|---|---|---|"]
    for result in results:
        ours, peer = result["ours"], result.get("plain")
        seconds = [f"{ours['seconds']:.2f}", f"{peer['seconds']:.2f}" if peer else "not installed"]
        ratio = f"{peer['seconds'] / ours['seconds']:.1f}x" if peer else ""
        memory = [f"{side['peak_gpu_bytes'] / 1e9:.1f} GB" if side else "" for side in (ours, peer)]
        lines.append("| " + " | ".join([result["size"], result["shape"], *seconds, ratio, *memory]) + " |")
    return "\n".join(lines)

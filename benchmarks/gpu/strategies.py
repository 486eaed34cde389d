"""`ddp` and `fsdp`: a run that stops and goes on from its checkpoint ends with the weights of one that did not stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _model
import _shapes
import torch

from benchmarks.gpu.common import fit, on_gpu
from swirl_lightning.distributed.checkpointing import AtomicCheckpointIO

STRATEGIES = ("ddp", "fsdp")
STEPS, STOP = 6, 3  # batches of the run, and after how many it stops


def measure(place: Path, tiny: bool) -> dict[str, dict[str, Any]]:
    """Largest difference of a weight, by strategy; and between the two strategies."""
    size = _shapes.SIZES["tiny" if tiny else "0.5b"]
    _model.write(place / "models", size)
    _write_pairs(place / "pairs.jsonl", size.vocab)
    results: dict[str, dict[str, Any]] = {}
    ends = {}
    for strategy in STRATEGIES:
        for name, arguments in (("whole", ()), ("stopped", ("--trainer.max_steps", str(STOP)))):
            settings = _settings(place, place / strategy / name, strategy)
            fit(place / f"{strategy}-{name}.yaml", settings, *arguments, apart=not tiny)
        resumed = ("--ckpt_path", "last")
        fit(place / f"{strategy}-stopped.yaml", settings, *resumed, apart=not tiny)
        whole, stopped = (_weights(place / strategy / name) for name in ("whole", "stopped"))
        ends[strategy] = whole
        results[strategy] = {"devices": _devices(), "resumed": _difference(whole, stopped)}
    results["fsdp"]["to ddp"] = _difference(*ends.values())
    return results


def _devices() -> int:
    return torch.cuda.device_count() if on_gpu() else 1


def _write_pairs(file: Path, vocab: int) -> None:
    import json

    shape = _shapes.SHAPES["smoke"]
    rows = [
        {"state": p.state, "next_state": p.next_state, "action": p.action if i % 2 else None, "episode": str(i), "step": 0}
        for i, p in enumerate(_shapes.pairs(shape, 12, vocab=vocab))
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _settings(place: Path, run_dir: Path, strategy: str) -> dict[str, Any]:
    shape = _shapes.SHAPES["smoke"]
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}}  # Adam magnifies the rounding of tiny gradients
    role = {"group_size": 2, "advantage": "none"}
    return {
        "seed_everything": 0,
        "run_dir": str(run_dir),
        "trainer": {
            "accelerator": "auto",
            "strategy": strategy,
            "devices": _devices(),
            "logger": False,
            "limit_val_batches": 0,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
        "checkpoint": {"every_n_batches": 1},
        "model": {
            "world_model": {"base": str(place / "models" / "fwm"), "storage": "separate"},
            "tokenizer": str(place / "models" / "tokenizer"),
            "prompts": {"fwm": ["{state} {action}"], "idm": ["{state} {next_state}"]},
            "max_prompt_tokens": shape.state + shape.next_state,
            "schedule": {"warmup_epochs": 1, "iterations": 1},
            "fwm": role | {"sampling": {"max_new_tokens": shape.next_state + 1}},
            "idm": role | {"sampling": {"max_new_tokens": shape.action + 1}},
            **{f"{phase}_optimizer": optimizer for phase in ("warmup", "fwm", "idm")},
        },
        "data": {
            "class_path": "swirl_lightning.data.TransitionDataModule",
            "init_args": {
                "path": str(place / "pairs.jsonl"),
                "labelled_fraction": 1.0,
                "val_fraction": 0.0,
                "test_fraction": 0.0,
                "warmup_batch_size": 3,
                "batch_size": 3,
            },
        },
    }


def _weights(run_dir: Path) -> dict[str, torch.Tensor]:
    state = AtomicCheckpointIO().load_checkpoint(run_dir / "checkpoints" / "last.ckpt")["state_dict"]
    return {name: value.float() for name, value in state.items()}


def _difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Differences by strategy."""
    lines = ["| strategy | devices | stopped and resumed: largest difference of a weight | to `ddp` |", "|---|---|---|---|"]
    for strategy, found in results.items():
        other = f"{found['to ddp']:.1e}" if "to ddp" in found else ""
        lines.append(f"| `{strategy}` | {found['devices']} | {found['resumed']:.1e} | {other} |")
    return "\n".join(lines)

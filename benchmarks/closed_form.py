"""A phase in closed form against GRPO: processor time of one step, and of it what scoring K candidates takes.

Same pairs, models and number of actions to think about: GRPO samples K completions of a pair, the closed form scores K
proposed ones (Phase II) or K actions for the observed next state (Phase I, ``elbo``). What a step teaches is another matter:
docs/study.md has what both gain. Prints a table and writes JSON:

    python benchmarks/closed_form.py --json out.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import _model
import _ours
import _shapes
import lightning as L
import torch

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.proposals import GivenActions
from swirl_lightning.algorithm.settings import PosteriorConfig
from swirl_lightning.types import Role

SHAPES = {"Phase II": _shapes.SHAPES["phase2-text"], "Phase I": _shapes.SHAPES["phase1-text"]}


class Steps(L.Callback):
    """Processor seconds of every step, and of its parts by wall clock."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.parts: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: SwirlModule, batch: Any, batch_idx: int) -> None:
        """Starts the clock."""
        self._started = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: SwirlModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stops it."""
        self.seconds.append(time.process_time() - self._started)
        self.parts.append({name: value for name, value in pl_module.last_values.items() if name.startswith("time/")})


def measure(shape: _shapes.Shape, folder: Path, k: int, rounds: int, *, closed: bool) -> dict[str, Any]:
    """The fastest of ``rounds`` steps after one that is not counted."""
    shape = replace(shape, group=k)
    module = _ours.module(shape, _shapes.SMALL, folder, token_budget=16384, compile=False)
    words = _shapes.pairs(replace(shape, state=1, next_state=1), k, seed=7)
    if closed:
        posterior = PosteriorConfig(beta=1.0, draws=0, greedy=False, proposals=[GivenActions([p.action for p in words])])
        role = Role(shape.phase)
        objective = "posterior" if role is Role.IDM else "elbo"
        module.roles = {
            one: replace(given, posterior=posterior, objective=objective if one is role else given.objective)
            for one, given in module.roles.items()
        }
    steps = Steps()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        reload_dataloaders_every_n_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[steps],
    )
    trainer.fit(module, _ours.Batches(shape, rounds + 1, _shapes.SMALL.vocab))
    fastest = min(range(1, rounds + 1), key=steps.seconds.__getitem__)
    return {"seconds": steps.seconds[fastest], "parts": steps.parts[fastest]}


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", nargs="*", type=int, default=[4, 8, 16, 32], help="K, and G of GRPO")
    parser.add_argument("--rounds", type=int, default=2, help="counted steps of a row; the fastest is taken")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        _model.write(Path(folder), _shapes.SMALL)
        for phase, shape in SHAPES.items():
            for k in args.candidates:
                grpo, closed = (measure(shape, Path(folder), k, args.rounds, closed=flag) for flag in (False, True))
                read = shape.pairs * k * 2 * (shape.action + shape.next_state + 1)  # a candidate is read by both models
                sampled = shape.pairs * k * shape.completion
                rows.append({"phase": phase, "k": k, "grpo": grpo, "closed": closed, "sampled": sampled, "read": read})
                print(f"{phase}, K = {k}: GRPO {grpo['seconds']:.2f} s, closed form {closed['seconds']:.2f} s", flush=True)
    print(
        "\n| phase | K | GRPO, s | tokens it samples | closed form, s | of it scoring | tokens read a second | times as fast |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        grpo, closed = row["grpo"]["seconds"], row["closed"]["seconds"]
        scoring = row["closed"]["parts"]["time/posterior"]
        cells = [row["phase"], row["k"], f"{grpo:.2f}", f"{row['sampled']:,}", f"{closed:.2f}", f"{scoring:.2f}"]
        print("| " + " | ".join(map(str, [*cells, f"{row['read'] / scoring:,.0f}", f"{grpo / closed:.1f}x"])) + " |")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""A callback that writes what every rank spent: seconds of each step, and the peak of its memory while it trained."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class Meter(Callback):
    """Writes ``meter-RANK.json`` into the run folder; bytes are those of Linux's ``/proc/self/status``."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.imported = _status("VmRSS")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forgets the peak of loading."""
        self.loaded = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the clocks."""
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clocks."""
        self.steps.append({"wall": time.perf_counter() - self.started, "processor": time.process_time() - self.cpu_started})

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes everything."""
        result = {"steps": self.steps, "imported": self.imported, "loaded": self.loaded, "peak": _status("VmHWM")}
        (Path(trainer.default_root_dir) / f"meter-{trainer.global_rank}.json").write_text(json.dumps(result), encoding="utf-8")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")

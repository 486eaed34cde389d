"""The curves of a run in a file of its own, whatever logger it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.files import STEPS, drop_later


class StepLog(Callback):
    """Appends the values of a step to ``steps.jsonl`` in the run folder, which ``swirl report`` draws.

    As often as loggers get them (``trainer.log_every_n_steps``), and at the last step of an epoch. A run that resumes drops the
    lines that it wrote after its checkpoint. ``swirl fit`` adds this callback by itself.
    """

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            drop_later(Path(trainer.default_root_dir) / STEPS, trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SwirlModule)
        wanted = trainer.is_last_batch or trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if not (wanted and trainer.is_global_zero):
            return
        place = {"label": pl_module.schedule.label(trainer.current_epoch), **pl_module.place}
        path = Path(trainer.default_root_dir) / STEPS
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**place, **pl_module.last_values}) + "\n")

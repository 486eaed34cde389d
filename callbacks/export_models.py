"""Hugging Face folders of both roles, written as the run goes."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.phase_end import WARMUP, PhaseEnd
from swirl_lightning.conversion.card import write_card
from swirl_lightning.conversion.export import export_role
from swirl_lightning.types import Role


class ExportModels(PhaseEnd):
    """Writes ``export/<label>/{fwm,idm}`` in the run folder, loadable by ``transformers`` as they are.

    Args:
        warmup: After the warm-up (label ``warmup``), the starting point of other methods.
        phases: After every SWIRL phase.
        last: At the end of the run (label ``last``).
    """

    def __init__(self, warmup: bool = True, phases: bool = False, last: bool = True) -> None:
        self.warmup = warmup
        self.phases = phases
        self.last = last

    @override
    def on_phase_end(self, trainer: L.Trainer, module: SwirlModule, label: str) -> None:
        if self.warmup if label == WARMUP else self.phases:
            self._export(trainer, module, label)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SwirlModule)
        if self.last:
            self._export(trainer, pl_module, "last")

    @staticmethod
    def _export(trainer: L.Trainer, module: SwirlModule, label: str) -> None:
        if trainer.is_global_zero or module.world_model.sharding is not None:  # shards are gathered from all ranks
            for role in Role:
                folder = Path(trainer.default_root_dir) / "export" / label / role.value
                export_role(module.inference, role, folder)
                if trainer.is_global_zero:
                    write_card(folder, role, Path(trainer.default_root_dir))

"""What ``swirl predict`` writes: a line a transition, as ``swirl score`` reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from typing_extensions import override

from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.evaluation.pictures import as_files
from swirl_lightning.files import put
from swirl_lightning.types import Transition

PREDICTIONS = "predictions.jsonl"


class PredictionFile(BasePredictionWriter):
    """Writes predicted next states and inferred actions of the test split to ``predictions.jsonl`` in the run folder.

    Images become PNG files in ``predictions.images``. Of several processes, each writes a file of its own share,
    ``predictions-rank1.jsonl`` and so on. ``swirl predict`` adds it by itself.
    """

    def __init__(self) -> None:
        super().__init__("batch")
        self._file: IO[str] | None = None
        self._count = 0

    @override
    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        target = self._target(trainer)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._count = target.with_suffix(".tmp").open("w", encoding="utf-8"), 0

    @override
    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Sequence[Transition],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        assert isinstance(pl_module, SwirlModule)
        assert self._file is not None
        for said, truth in zip(prediction, batch, strict=True):
            line = {"prediction": said["predicted_state"], "reference": truth.next_state, "state": truth.state}
            if isinstance(truth.state, bytes):
                pictures = self._target(trainer).with_suffix(".images")
                line = as_files(pl_module.inference.codec, line, pictures, self._count)
            line |= {"split": "test", "action": truth.action, "inferred_action": said["inferred_action"]}
            self._file.write(json.dumps({**line, "episode": truth.episode, "step": truth.step}, ensure_ascii=False) + "\n")
            self._count += 1

    @override
    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._file is not None
        self._file.close()
        target = self._target(trainer)
        put(target.with_suffix(".tmp"), target)
        print(f"{self._count} predictions in {target} (swirl score reads it)")

    def _target(self, trainer: L.Trainer) -> Path:
        path = Path(trainer.default_root_dir) / PREDICTIONS
        return path if trainer.world_size == 1 else path.with_stem(f"{path.stem}-rank{trainer.global_rank}")

"""A callback of your own: any Lightning callback; `callbacks/README.md` says what must come before what.

trainer:
  callbacks+:
    - { class_path: own_callback.BestOfGroup, init_args: { file: best.txt } }
"""

from pathlib import Path
from typing import Any

import lightning as L

from swirl_lightning import SwirlModule


class BestOfGroup(L.Callback):
    """Writes the best rewarded member of every step's first group; place it before ``RolloutSampler``.

    Args:
        file: in the run folder.
    """

    def __init__(self, file: str = "best.txt") -> None:
        self.file = file

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SwirlModule)
        if (step := pl_module.last_experience) is not None and trainer.is_global_zero:
            best = int(step.judgement.rewards[0].argmax())
            with (Path(trainer.default_root_dir) / self.file).open("a", encoding="utf-8") as file:
                file.write(f"{step.rollouts.role.value} {step.rollouts.samples[0][best]!r}\n")

"""Texts and pictures for whatever loggers a run has; the run folder holds them in any case."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import WarningCache

_said = WarningCache()


def log_text(trainer: L.Trainer, name: str, text: str, file: str) -> None:
    """Hands Markdown to the loggers that take texts, TensorBoard's and those with ``log_text`` as W&B's has it.

    Args:
        trainer: of the run.
        name: tag of the text.
        text: Markdown.
        file: what holds it in the run folder, which is said once of a logger that takes none.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(name, text, trainer.global_step)
        elif (log := getattr(logger, "log_text", None)) is not None:
            log(key=name, columns=["text"], data=[[text]], step=trainer.global_step)
        else:
            _said.info(f"{type(logger).__name__} takes no texts: they are in {trainer.default_root_dir}/{file}")


def log_image(trainer: L.Trainer, name: str, image: Any, file: str) -> None:
    """Hands a picture to the loggers that take pictures, TensorBoard's and those with ``log_image`` as W&B's has it.

    Args:
        trainer: of the run.
        name: tag of the picture.
        image: uint8 [height, width, 3].
        file: what holds it in the run folder, which is said once of a logger that takes none.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, image, trainer.global_step, dataformats="HWC")
        elif (log := getattr(logger, "log_image", None)) is not None:
            log(key=name, images=[image], step=trainer.global_step)
        else:
            _said.info(f"{type(logger).__name__} takes no pictures: they are in {trainer.default_root_dir}/{file}")

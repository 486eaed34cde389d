"""``swirl codec``: trains an image codec on the frames of recorded transitions.

A command of its own rather than ``swirl fit``: the configuration of a SWIRL run names no class for its model, and none of its
phases, checkpoints and callbacks apply here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECONSTRUCTIONS, REPORT = "reconstructions.png", "report.json"


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
    from lightning.pytorch.loggers import TensorBoardLogger

    from swirl_lightning.codec_training.frames import FrameDataModule
    from swirl_lightning.codec_training.module import CodecModule
    from swirl_lightning.codecs.image_pixels import to_png
    from swirl_lightning.commands.trainer import RunParser

    class CodecCLI(LightningCLI):
        """LightningCLI that writes the trained codec, its measures and a picture into ``out``."""

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_argument("--out", type=str, required=True, help="folder of the codec")
            parser.link_arguments("data.size", "model.size")
            parser.link_arguments("data.tile", "model.tile")

        def instantiate_trainer(self, **kwargs: Any) -> Any:
            settings = self.config["fit"]
            if settings.trainer.logger in (None, True):
                kwargs.setdefault("logger", TensorBoardLogger(settings.out, name="", version="log"))
            return super().instantiate_trainer(**kwargs)

        def after_fit(self) -> None:
            if not self.trainer.is_global_zero:
                return
            out, module = Path(self.config["fit"].out), self.model
            assert isinstance(module, CodecModule)
            measured = {
                name.removeprefix("val/"): round(float(value), 4)
                for name, value in self.trainer.callback_metrics.items()
                if name.startswith("val/")
            }
            module.save(out)
            (out / REPORT).write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
            (out / RECONSTRUCTIONS).write_bytes(to_png(module.picture().permute(1, 2, 0).cpu().numpy()))
            print(f"{out}: " + ", ".join(f"{name} {value}" for name, value in measured.items()))

    CodecCLI(
        CodecModule,
        FrameDataModule,
        auto_configure_optimizers=False,
        save_config_callback=None,
        parser_class=RunParser,
        parser_kwargs={"prog": "swirl codec"},
        args=["fit", *argv],
    )
    return 0

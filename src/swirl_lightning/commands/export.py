"""``swirl export``: FWM and IDM of a checkpoint as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import auto_cli

from swirl_lightning.commands.loading import inference_from_run
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.conversion.export import export_role
from swirl_lightning.types import Role


def export(run_dir: Path, out: Path, checkpoint: Path | None = None, adapter_only: bool = False) -> None:
    """Write FWM and IDM as ordinary Hugging Face folders ``OUT/fwm`` and ``OUT/idm``.

    Args:
        run_dir: Folder of a ``swirl fit`` run.
        out: Where to write.
        checkpoint: Checkpoint file; default: the run's last.
        adapter_only: With storage ``adapters``, write LoRA adapters instead of merged models.
    """
    inference = inference_from_run(run_dir, checkpoint)
    for role in Role:
        folder = export_role(inference, role, out / role.value, adapter_only=adapter_only)
        print(f"{role.value}: {folder}")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(export, prog="swirl export", args=list(argv), as_positional=True, parser_class=Parser)
    return 0

"""``swirl export``: FWM and IDM of a checkpoint as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import auto_cli

from swirl_lightning.commands.loading import inference_from_run
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.conversion.card import write_card
from swirl_lightning.conversion.export import export_role
from swirl_lightning.conversion.push import hub_name
from swirl_lightning.conversion.push import push as push_folder
from swirl_lightning.types import Role


def export(
    run_dir: Path, out: Path, checkpoint: Path | None = None, adapter_only: bool = False, push: str | None = None
) -> None:
    """Write FWM and IDM as ordinary Hugging Face folders ``OUT/fwm`` and ``OUT/idm``, each with a model card.

    Args:
        run_dir: Folder of a ``swirl fit`` run.
        out: Where to write.
        checkpoint: Checkpoint file; default: the run's last.
        adapter_only: With storage ``adapters``, write LoRA adapters instead of merged models.
        push: ``hub:owner/name`` uploads them to ``owner/name-fwm`` and ``owner/name-idm``, private where they are new; with the
            token in the environment variable HF_TOKEN.
    """
    name = None if push is None else hub_name(push)
    inference = inference_from_run(run_dir, checkpoint)
    for role in Role:
        folder = export_role(inference, role, out / role.value, adapter_only=adapter_only)
        write_card(folder, role, run_dir)
        print(f"{role.value}: {folder}")
    if name is not None:
        for role in Role:
            print(f"{role.value}: {push_folder(out / role.value, f'{name}-{role.value}')}")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(export, prog="swirl export", args=list(argv), as_positional=True, parser_class=Parser)
    return 0

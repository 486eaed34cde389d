"""Checkpoints that are whole or not there: written beside the target, flushed to disk, then moved over it."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from swirl_lightning.distributed import shards
from swirl_lightning.files import discard, put
from swirl_lightning.hints import did_you_mean


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves through a temporary file in the same folder, so that a crash or a full disk leaves the previous file as it was."""

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes the checkpoint; it is on disk when this returns.

        Raises:
            OSError: if the disk is full or the folder cannot be written; the previous checkpoint is untouched.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
            put(temporary, target)
            shards.clear(target, checkpoint.get(shards.FOLDER))
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            hint = "the disk is full: free some room" if _no_space(error) else "check the folder and its permissions"
            raise OSError(
                f"could not write checkpoint {target}: {error}. The previous checkpoint is intact; {hint}, "
                "then resume with --ckpt_path last"
            ) from error
        finally:
            discard(temporary)

    @override
    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Reads a checkpoint, also one in shards, with whole tensors."""
        loaded: dict[str, Any] = super().load_checkpoint(path, map_location=map_location, weights_only=weights_only)
        return shards.join(loaded, Path(path), whole=True)


def check_file(path: Path) -> None:
    """Looks whether a file can be a checkpoint, without reading it.

    Args:
        path: of the checkpoint.

    Raises:
        FileNotFoundError: if there is no such file, naming those that are near.
        ValueError: if it is something else, or only the beginning of one.
    """
    if not path.is_file():
        there = [str(file) for folder in (path, path.parent) for file in folder.glob("**/*.ckpt")]
        raise FileNotFoundError(f"there is no checkpoint {path}{did_you_mean(str(path), there)}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no checkpoint of swirl fit, or only the beginning of one: give last.ckpt of a run")


def _no_space(error: BaseException | None) -> bool:
    """Whether a full disk (or quota) is behind an error: torch's writer hides it behind a complaint about positions."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False

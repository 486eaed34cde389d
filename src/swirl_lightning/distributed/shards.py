"""Checkpoints in shards: every rank writes the rows that it holds, and reads those that it needs. Plain torch and safetensors.

``torch.distributed.checkpoint`` does this too, but describes its files in a pickle, which runs code when it is read. Its
``HuggingFaceStorageWriter`` has none: written on two ranks, its files gave the same tensors on one and on three. But it reads
into tensors that must be there already, as those of an optimizer that has made no step are not, and of a merge or an export.

A checkpoint ``NAME`` is a small file of all that is no tensor, and a folder ``NAME.shards-K`` beside it that the file names.
The folder is complete before the file is there, so that a checkpoint is whole or not there, as without shards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from swirl_lightning.files import discard, sync_folder

FOLDER = "shards"  # key of a checkpoint: name of the folder with its tensors


class Stored:
    """A tensor in the files of a checkpoint, of which any rows can be read.

    Args:
        pieces: open file and shape of every rank's part, in the order of the rows.
        name: of the tensor in the files.
    """

    def __init__(self, pieces: Sequence[tuple[Any, Sequence[int]]], name: str) -> None:
        self._pieces, self._name = pieces, name
        shapes = [shape for _, shape in pieces]
        self.shape = torch.Size([sum(shape[0] for shape in shapes), *shapes[0][1:]] if shapes[0] else [])

    @property
    def dtype(self) -> torch.dtype:
        """Type of its elements."""
        dtype: torch.dtype = self._pieces[0][0].get_slice(self._name)[:1].dtype
        return dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        first, last, _ = rows.indices(len(self))
        parts, start = [], 0
        for file, shape in self._pieces:
            a, b = max(first - start, 0), min(last - start, shape[0])
            if a < b:
                parts.append(file.get_slice(self._name)[a:b])
            start += shape[0]
        return torch.cat(parts) if parts else torch.empty(0, *self.shape[1:])

    def whole(self) -> Tensor:
        """All of it."""
        parts: list[Tensor] = [file.get_tensor(self._name) for file, _ in self._pieces]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def new_folder(file: Path) -> Path:
    """Name of a folder for the tensors of a checkpoint that is not there yet."""
    number = 0
    while (folder := file.with_name(f"{file.name}.shards-{number}")).exists():
        number += 1
    return folder


def split(checkpoint: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A checkpoint without its tensors, which refers to ``folder``, and the tensors by name."""
    tensors = {f"model/{name}": tensor for name, tensor in checkpoint["state_dict"].items()}
    optimizers = []
    for i, optimizer in enumerate(checkpoint.get("optimizer_states", ())):
        rest: dict[int, dict[str, Any]] = {}
        for parameter, values in optimizer["state"].items():
            rest[parameter] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
            tensors |= {f"optimizer/{i}/{parameter}/{k}": v for k, v in values.items() if isinstance(v, Tensor)}
        optimizers.append({**optimizer, "state": rest})
    return {**checkpoint, "state_dict": {}, "optimizer_states": optimizers, FOLDER: folder.name}, tensors


def join(checkpoint: dict[str, Any], file: Path, *, whole: bool) -> dict[str, Any]:
    """The checkpoint that was read from ``file`` with its tensors, where they are in shards.

    Args:
        checkpoint: as read.
        file: it.
        whole: read them now; otherwise they are :class:`Stored`.

    Returns:
        The same object.

    Raises:
        ValueError: if a rank's part is missing.
    """
    if FOLDER not in checkpoint:
        return checkpoint
    for name, stored in _read(file.resolve().parent / checkpoint.pop(FOLDER)).items():
        value = stored.whole() if whole else stored
        kind, _, rest = name.partition("/")
        if kind == "model":
            checkpoint["state_dict"][rest] = value
        else:
            i, parameter, key = rest.split("/")
            checkpoint["optimizer_states"][int(i)]["state"][int(parameter)][key] = value
    return checkpoint


def write(folder: Path, tensors: Mapping[str, Tensor], rank: int, ranks: int) -> None:
    """Writes this rank's rows of sharded tensors, and on rank 0 those that every rank has whole.

    Raises:
        OSError: if they cannot be written; checkpoints that were there are untouched.
    """
    own = {}
    for name, tensor in tensors.items():
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if local.numel() if isinstance(tensor, DTensor) else rank == 0:
            own[name] = local.detach().to("cpu", copy=True).contiguous()  # a copy: tied weights must not share memory
    file = folder / f"rank-{rank:05d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(own, file, metadata={"ranks": str(ranks)})
        with file.open("rb") as written:
            os.fsync(written.fileno())
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        discard(file)
        raise OSError(
            f"could not write {file}: {error}. The previous checkpoint is intact; check the folder, its permissions and the "
            "room on the disk, then resume with --ckpt_path last"
        ) from error


def _read(folder: Path) -> dict[str, Stored]:
    files = [safe_open(file, framework="pt") for file in sorted(folder.glob("rank-*.safetensors"))]
    if not files or len(files) != int(files[0].metadata()["ranks"]):
        raise ValueError(f"checkpoint folder {folder} is incomplete: {len(files)} files of ranks are there")
    pieces: dict[str, list[tuple[Any, Sequence[int]]]] = {}
    for file in files:
        for name in file.keys():  # noqa: SIM118  # not a mapping
            pieces.setdefault(name, []).append((file, file.get_slice(name).get_shape()))
    return {name: Stored(parts, name) for name, parts in pieces.items()}


def clear(file: Path, keep: str | None) -> None:
    """Removes folders of shards that no checkpoint beside ``file`` refers to any more.

    Args:
        file: a checkpoint that was just written.
        keep: the folder that it refers to.
    """
    for folder in file.parent.glob("*.shards-*"):
        owner = folder.with_name(folder.name.rpartition(".shards-")[0])
        if folder.name != keep and (owner == file or not owner.exists()):
            shutil.rmtree(folder, ignore_errors=True)

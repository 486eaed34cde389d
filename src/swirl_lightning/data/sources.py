"""Where data come from: a path, a list, a glob, a folder or the hub, as the files and data sets that are read in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl_lightning.data.columns import DataError, listed
from swirl_lightning.data.schema import MANIFEST, TRANSITIONS

HUB = "hub:"
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".3gp")
_SAVED = ("dataset_info.json", "dataset_dict.json")  # what `save_to_disk` leaves in its folder
_KNOWN = "Parquet, JSON, JSONL, CSV, TSV (also .gz, .zst, .bz2, .xz), images, videos or a saved data set"

PathLike = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Item:
    """A file, or a data set, that is read as a whole.

    Attributes:
        path: where it lies; None for a data set of the hub or in memory.
        kind: parquet, jsonl, json, csv, tsv, images, video or dataset.
        name: for messages.
        label: short and the same on every machine: in the names of episodes that have none.
        split: of a data set that has several.
        dataset: a ``datasets.Dataset`` or ``IterableDataset``.
        files: of a folder of images.
    """

    path: Path | None
    kind: str
    name: str
    label: str
    split: str | None = None
    dataset: Any = None
    files: tuple[Path, ...] = ()


def items(path: PathLike, *, streaming: bool = False, option: str = "data.path") -> tuple[list[Item], list[str]]:
    """Everything that a path names, in order of the names, and the files among them that are no data.

    Args:
        path: a file, a glob, a folder, a saved data set, ``hub:owner/name[[:config]:split]``, or a list of them.
        streaming: read data sets of the hub while training, without a copy on disk.
        option: what messages call the path.

    Raises:
        FileNotFoundError: if there is nothing.
        DataError: for a file of an unknown kind, or a folder that holds several kinds.
    """
    found: list[Item] = []
    others: list[str] = []
    for one in [path] if isinstance(path, str | Path) else path:
        if str(one).startswith(HUB):
            found += _hub(str(one), streaming, option)
        else:
            more, beside = _local(Path(one), option)
            found += more
            others += beside
    if not found:
        raise FileNotFoundError(f"{option}: an empty list of files: {path!r}")
    return found, others


def _local(path: Path, option: str) -> tuple[list[Item], list[str]]:
    others: list[str] = []
    if path.is_file():
        files = [path]
    elif path.is_dir():
        if any((path / name).is_file() for name in _SAVED):
            return _saved(path), []
        files, others = _folder(path, option)
    else:
        pattern = str(path.relative_to(path.anchor)) if path.anchor else str(path)
        matches = sorted(Path(path.anchor or ".").glob(pattern))
        files = [match for match in matches if match.is_file()]
        found: list[Item] = []
        for folder in (match for match in matches if match.is_dir()):
            more, beside = _local(folder, option)
            found += more
            others += beside
        if found:
            return found + (_as_items(files, path, option) if files else []), others
    if not files:
        raise FileNotFoundError(f"{option}: '{path}' matches no file; it may be {_KNOWN}")
    return _as_items(files, path, option), others


def _folder(folder: Path, option: str) -> tuple[list[Path], list[str]]:
    """Data files of a folder and its subfolders, and the names of what else is there."""
    if (folder / TRANSITIONS).is_file():  # written by ``swirl record``
        return [folder / TRANSITIONS], []
    files: dict[str, list[Path]] = {}
    others = []
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if not file.is_file() or any(part.startswith(".") for part in inside.parts) or file.name == MANIFEST:
            continue
        if (kind := kind_of(file)) is None:
            others.append(inside.as_posix())
        else:
            files.setdefault(kind, []).append(file)
    if len(files) > 1:
        raise DataError(
            f"{option}: {folder} holds files of several kinds ({', '.join(sorted(files))}); name one kind, "
            f"e.g. {folder / ('**/*' + next(iter(files.values()))[0].suffix)}"
        )
    if not files:
        there = f"there are: {listed(others)}" if others else "the folder is empty"
        raise FileNotFoundError(f"{option}: '{folder}' matches no data file ({_KNOWN}); {there}")
    return next(iter(files.values())), others


def kind_of(file: Path) -> str | None:
    """How a file is read, by its name; None for what is no data."""
    suffix = file.suffix.lower()
    if suffix in COMPRESSIONS:
        suffix = Path(file.stem).suffix.lower()
        return suffix.removeprefix(".").replace("ndjson", "jsonl") if suffix in TEXT_SUFFIXES else None
    if suffix in TEXT_SUFFIXES:
        return suffix.removeprefix(".").replace("ndjson", "jsonl")
    return {".parquet": "parquet", **dict.fromkeys(IMAGES, "images"), **dict.fromkeys(VIDEOS, "video")}.get(suffix)


def _as_items(files: Sequence[Path], path: Path, option: str) -> list[Item]:
    base = path if path.is_dir() else _common_folder(files)
    made: list[Item] = []
    pictures: dict[Path, list[Path]] = {}
    for file in files:
        kind = kind_of(file)
        if kind is None:
            raise DataError(f"{option}: {file} is no data file; it may be {_KNOWN}")
        if kind == "images":
            pictures.setdefault(file.parent, []).append(file)
        else:
            made.append(Item(file, kind, str(file), file.relative_to(base).as_posix()))
    for folder, frames in pictures.items():  # each folder an episode
        made.append(Item(folder, "images", str(folder), folder.relative_to(base).as_posix(), files=tuple(frames)))
    return made


def _common_folder(files: Sequence[Path]) -> Path:
    folder = files[0].parent
    while any(not file.is_relative_to(folder) for file in files):
        folder = folder.parent
    return folder


def _saved(path: Path) -> list[Item]:
    import datasets

    return list(_parts(datasets.load_from_disk(str(path)), str(path), path.name))


def _hub(path: str, streaming: bool, option: str) -> list[Item]:
    import datasets

    repository, *suffix = path.removeprefix(HUB).split(":")
    if len(suffix) > 2:
        raise DataError(f"{option}: {path!r}; write {HUB}owner/name, {HUB}owner/name:split or {HUB}owner/name:config:split")
    config, split = (suffix[0], suffix[1]) if len(suffix) == 2 else (None, suffix[0] if suffix else None)
    loaded = datasets.load_dataset(repository, config or None, split=split or None, streaming=streaming)
    return list(_parts(loaded, path, path))


def _parts(loaded: Any, name: str, label: str) -> Iterator[Item]:
    if not isinstance(loaded, dict):
        yield Item(None, "dataset", name, label, dataset=loaded)
        return
    for split, dataset in loaded.items():
        yield Item(None, "dataset", f"{name}[{split}]", f"{label}/{split}", str(split), dataset)

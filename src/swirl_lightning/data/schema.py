"""How transitions lie on disk: Parquet with a manifest beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from swirl_lightning.files import clear_temporaries, discard, put, put_text
from swirl_lightning.types import Transition, UnlabelledPair

MANIFEST = "manifest.json"
TRANSITIONS = "transitions.parquet"
FIELDS = ("state", "next_state", "action", "context", "episode", "step", "split")
SPLITS = ("train", "val", "test")


def schema(*, images: bool = False) -> pa.Schema:
    """Columns of a file of transitions.

    Args:
        images: states are encoded images (bytes) rather than text.
    """
    state = pa.binary() if images else pa.string()
    return pa.schema(
        [
            pa.field("state", state, nullable=False),
            pa.field("next_state", state, nullable=False),
            pa.field("action", pa.string()),
            pa.field("context", pa.string(), nullable=False),
            pa.field("episode", pa.string(), nullable=False),
            pa.field("step", pa.int64(), nullable=False),
            pa.field("split", pa.string()),
        ]
    )


def write_transitions(
    folder: str | Path,
    transitions: Iterable[tuple[Transition | UnlabelledPair, str | None]],
    manifest: Callable[[], Mapping[str, Any]],
    *,
    batch_size: int = 4096,
) -> int:
    """Writes transitions and their manifest, each file whole or not at all; those of an earlier recording stay until then.

    Args:
        folder: made if missing.
        transitions: transitions (state-only ones too) with their split (``train``, ``val``, ``test``) or None.
        manifest: says what made them: simulator, version, seeds, counts. Called after the last transition.
        batch_size: rows of a Parquet row group.

    Returns:
        Number of transitions.

    Raises:
        ValueError: if there are none.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clear_temporaries(folder, TRANSITIONS)
    temporary = folder / f".{TRANSITIONS}.{os.getpid()}.tmp"
    count, writer = 0, None
    rows: list[dict[str, Any]] = []

    def flush() -> None:
        nonlocal writer
        table = pa.Table.from_pylist(rows, schema=schema(images=isinstance(rows[0]["state"], bytes)))
        if writer is None:
            writer = pq.ParquetWriter(temporary, table.schema, compression="zstd")
        writer.write_table(table)
        rows.clear()

    try:
        for transition, split in transitions:
            rows.append({field: getattr(transition, field, None) for field in FIELDS if field != "split"} | {"split": split})
            count += 1
            if len(rows) == batch_size:
                flush()
        if rows:
            flush()
        if writer is None:
            raise ValueError(f"nothing was recorded for {folder}: its source holds no transition")
        writer.close()
        text = json.dumps({**manifest(), "transitions": count}, indent=2) + "\n"
        (folder / MANIFEST).unlink(missing_ok=True)  # an earlier recording's, which must not be taken for this one's
        put(temporary, folder / TRANSITIONS)
        put_text(folder / MANIFEST, text)
    finally:
        discard(temporary)
    return count

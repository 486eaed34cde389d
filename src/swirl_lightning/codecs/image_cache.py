"""Codes of images on disk, so that an image is encoded once and for all runs."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

_AT_ONCE = 500


def image_hash(data: bytes) -> bytes:
    """16 bytes that identify an encoded image."""
    return hashlib.blake2b(data, digest_size=16).digest()


def cache_folder() -> Path:
    """``$SWIRL_CACHE``, or ``~/.cache/swirl-lightning``."""
    return Path(os.environ.get("SWIRL_CACHE") or Path.home() / ".cache" / "swirl-lightning")


class CodeCache:
    """Image hash to codes, one SQLite file a codec; several processes may use it at once.

    Args:
        codec: key of the codec, part of the file's name: another codec never reads these codes.
        folder: default: :func:`cache_folder`.
    """

    def __init__(self, codec: str, folder: Path | None = None) -> None:
        folder = folder or cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"codes-{codec}.sqlite"

    def _connect(self) -> sqlite3.Connection:
        """A connection of its own for every call: none survives a fork."""
        connection = sqlite3.connect(self.path, timeout=60)
        connection.execute("CREATE TABLE IF NOT EXISTS codes (image BLOB PRIMARY KEY, codes BLOB NOT NULL) WITHOUT ROWID")
        return connection

    def get(self, images: Iterable[bytes]) -> dict[bytes, bytes]:
        """Codes of those images (by hash) that are known."""
        wanted = list(images)
        found: dict[bytes, bytes] = {}
        connection = self._connect()
        try:
            for begin in range(0, len(wanted), _AT_ONCE):
                part = wanted[begin : begin + _AT_ONCE]
                query = f"SELECT image, codes FROM codes WHERE image IN ({','.join('?' * len(part))})"
                found.update(connection.execute(query, part).fetchall())
        finally:
            connection.close()
        return found

    def put(self, codes: Mapping[bytes, bytes]) -> None:
        """Adds codes by image hash, all or none."""
        connection = self._connect()
        try:
            with connection:
                connection.executemany("INSERT OR REPLACE INTO codes VALUES (?, ?)", codes.items())
        finally:
            connection.close()

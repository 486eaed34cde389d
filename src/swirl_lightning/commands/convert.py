"""``swirl convert``: checkpoints of other projects as folders that this one reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import auto_cli

from swirl_lightning.conversion.gguf import convert_gguf
from swirl_lightning.conversion.taming import convert_taming


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    formats: dict[str, Any] = {"vqgan": convert_taming, "gguf": convert_gguf}
    folder = auto_cli(formats, prog="swirl convert", args=list(argv), as_positional=False)
    print(f"written to {folder}")
    return 0

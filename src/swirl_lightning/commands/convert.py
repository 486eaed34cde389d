"""``swirl convert``: a VQGAN checkpoint in the taming-transformers layout as a diffusers VQModel."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import auto_cli

from swirl_lightning.codecs.image_taming import convert_taming


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    folder = auto_cli(convert_taming, prog="swirl convert", args=list(argv), as_positional=False)
    print(f"written to {folder}")
    return 0

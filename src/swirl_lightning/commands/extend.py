"""``swirl extend``: a pretrained language model learns ids for the codes of an image codec."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import auto_cli

from swirl_lightning.commands.parsing import Parser
from swirl_lightning.conversion.vocabulary import extend


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    folder = auto_cli(extend, prog="swirl extend", args=list(argv), as_positional=False, parser_class=Parser)
    print(f"written to {folder}")
    return 0

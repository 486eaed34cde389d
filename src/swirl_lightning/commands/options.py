"""Options that commands share, and messages that name the options of the command in use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swirl_lightning.data.columns import DataError

Columns = dict[str, str | list[str] | None]
"""``--columns``, as ``data.columns`` of ``swirl fit``."""

_VALUE = re.compile(r"\bdata\.(\w+): (\{[^}]*\})")
_OPTION = re.compile(r"\bdata\.(\w+)")


@contextmanager
def named_as(**options: str) -> Iterator[None]:
    """What ``swirl fit`` calls ``data.columns`` in a message is ``--columns`` here.

    Args:
        **options: names of options that are called otherwise, e.g. ``path="FILE"``.

    Raises:
        DataError: with the options' names in this command.
        FileNotFoundError: likewise.
        ValueError: likewise.
    """

    def name(option: str) -> str:
        return options.get(option, f"--{option}")

    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if type(error) not in (DataError, FileNotFoundError, ValueError) or error.args != (str(error),):
            raise
        message = _VALUE.sub(lambda match: f"{name(match[1])} '{match[2]}'", str(error))
        raise type(error)(_OPTION.sub(lambda match: name(match[1]), message)) from error


def refuse_existing(out: Path, *, overwrite: bool) -> None:
    """Nothing is written over without a word.

    Raises:
        FileExistsError: if the file or folder is there already.
    """
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already; --overwrite true writes over it")

"""What an error tells its reader to do: which package to install, which name was probably meant."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency where it is used.

    Raises:
        ImportError: with the ``pip install`` line that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} is not installed: pip install "swirl-lightning[{extra}]"') from error


def did_you_mean(name: str, known: Iterable[str], *, listed: bool = True) -> str:
    """The end of a message about an unknown name: the nearest of the known ones, or all of them.

    Args:
        name: as it was written.
        known: names that there are.
        listed: whether to name all where none is near.

    Returns:
        ``; did you mean 'X'?``, ``; there are a, b, c`` or nothing.
    """
    folded = {other.casefold(): other for other in known}
    if near := difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.65):
        return f"; did you mean {folded[near[0]]!r}?"
    return f"; there are {', '.join(folded.values())}" if folded and listed else ""

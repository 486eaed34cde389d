"""Optional dependencies: imported where they are used, with an error that says how to install them."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional dependency.

    Raises:
        ImportError: with the ``pip install`` line that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} is not installed: pip install "swirl-lightning[{extra}]"') from error

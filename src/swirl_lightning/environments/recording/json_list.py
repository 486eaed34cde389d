"""Released JSON files that hold one long list, read one element at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swirl_lightning.data.columns import DataError
from swirl_lightning.environments.registry import require

DEEPEST = 100  # lists and objects within each other; ``ijson.items`` would let a file of nothing but brackets fill the memory
_KINDS = {"start_map": "an object", "string": "text", "number": "a number", "null": "null", "boolean": "a boolean"}


def elements(path: Path, extra: str) -> Iterator[Any]:
    """Elements of the list in a file.

    Args:
        path: the file.
        extra: the extra that brings ijson, for the message where it is missing.

    Yields:
        Every element, as soon as it is read.

    Raises:
        DataError: if the file is malformed or cut off, holds something else than a list, or an element is nested too deeply.
    """
    ijson, common = require("ijson", extra), require("ijson.common", extra)
    number = depth = 0
    builder = common.ObjectBuilder()
    try:
        with path.open("rb") as stream:
            for event, value in ijson.basic_parse(stream, use_float=True):
                depth -= event in ("end_array", "end_map")
                if depth == 0 and event not in ("start_array", "end_array"):
                    raise DataError(f"{path}: must hold a JSON list of records, got {_KINDS[event]}")
                if depth > 0:
                    builder.event(event, value)
                depth += event in ("start_array", "start_map")
                if depth > DEEPEST:
                    raise DataError(f"{path}, record {number + 1}: lists and objects within each other, over {DEEPEST} deep")
                if depth == 1 and event != "start_array":
                    number += 1
                    yield builder.value
                    builder = common.ObjectBuilder()
    except ijson.JSONError as error:
        what = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: malformed or cut off JSON after record {number} ({what}); was it downloaded to the end?"
        ) from error

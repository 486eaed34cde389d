"""Published sets of edited images: records in JSON that name two image files and say what was done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from swirl_lightning.codecs.image_pixels import load_rgb
from swirl_lightning.data.columns import DataError

NO_FILE = "records without an image file"


def read_records(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Records of a JSON list or of JSON lines, counted from 1.

    Raises:
        DataError: naming file and record of what is malformed.
    """
    try:
        text = file.read_text(encoding="utf-8")
        records = (
            json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line]
        )
    except ValueError as error:
        raise DataError(f"{file}: malformed JSON ({error})") from error
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise DataError(f"{file}, record {number}: must be an object, got {type(record).__name__}")
        yield number, record


def text_field(record: Mapping[str, Any], name: str, place: str) -> str:
    """A field that must be text.

    Raises:
        DataError: naming place and field.
    """
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f"{place}: field {name!r} must be text, got {value!r}")
    return value


def image_pair(
    root: Path, record: Mapping[str, Any], names: tuple[str, str], place: str, missing: Literal["raise", "skip"]
) -> tuple[bytes, bytes] | None:
    """The two image files that a record names, each looked at.

    Args:
        root: folder that the paths start from.
        record: the record.
        names: fields of the image before and the image after.
        place: of the record, for errors.
        missing: what to do where a file is not there.

    Returns:
        Both files; None where one is missing and may be.

    Raises:
        DataError: naming place, field and file of what is missing or is no image.
    """
    images = []
    for name in names:
        path = root / text_field(record, name, place)
        if not path.is_file():
            if missing == "skip":
                return None
            raise DataError(f"{place}: field {name!r}: there is no file {path} (--env.missing skip leaves it out)")
        images.append(path.read_bytes())
        load_rgb(images[-1], where=f"{place}, field {name!r}")
    return images[0], images[1]

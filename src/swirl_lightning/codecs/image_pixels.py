"""Image bytes in, RGB pixels out: every format that a data set may hold, or an error that says what is wrong."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swirl_lightning.hints import require

MAX_PIXELS = 64_000_000
"""Larger images are refused: a file of a few kilobytes can unpack to gigabytes (a decompression bomb)."""


class ImageError(ValueError):
    """An image that cannot be used: says where it is and what is wrong with it."""


def load_rgb(data: bytes, *, where: str = "image", max_pixels: int = MAX_PIXELS) -> Any:
    """Decodes an image as a person would see it.

    The EXIF orientation is applied, transparency is laid on white, CMYK, palettes and grey become RGB, 16 bits become 8, and
    of an animation the first frame is taken.

    Args:
        data: the encoded image (PNG, JPEG, WebP, ...).
        where: place for messages, e.g. file and row.
        max_pixels: width times height at most.

    Returns:
        ``PIL.Image.Image`` in mode RGB.

    Raises:
        ImageError: if the bytes are no image, are cut short, hold too many pixels, or have pixels without a defined range.
        ImportError: without the ``visual`` extra.
    """
    pil = require("PIL.Image", "visual")
    ops = require("PIL.ImageOps", "visual")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pil.DecompressionBombWarning)  # the limit below is our own
            image = pil.open(io.BytesIO(data))
            if image.width * image.height > max_pixels:
                raise ImageError(
                    f"{where}: {image.width} x {image.height} pixels are more than {max_pixels}; shrink the image first"
                )
            image.load()
    except ImageError:
        raise
    except pil.DecompressionBombError as error:
        raise ImageError(f"{where}: the image unpacks to more than {max_pixels} pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{where}: not a readable image of {len(data)} bytes ({error})") from error
    image = ops.exif_transpose(image)
    if image.mode == "F":
        raise ImageError(f"{where}: pixels are floating-point numbers of unknown range; save the image with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError(f"{where}: pixel values from {wide.min()} to {wide.max()} do not fit into 16 bits")
        image = pil.fromarray((wide // 257).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return image.convert("RGB")


def square(image: Any, size: int | None) -> Any:
    """The largest centred square of an RGB image, resized to ``size`` x ``size`` pixels (bicubic); equal sizes stay exact.

    Args:
        image: ``PIL.Image.Image``.
        size: side in pixels; None keeps the square's own.

    Returns:
        ``PIL.Image.Image``.
    """
    side = min(image.size)
    size = side if size is None else size
    if image.size == (size, size):
        return image
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pil = require("PIL.Image", "visual")
    return image.resize((size, size), pil.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def pixels(data: bytes, size: int | None, *, where: str = "image") -> NDArray[np.uint8]:
    """Pixels of an encoded image as a square, uint8 [size, size, 3]."""
    return np.asarray(square(load_rgb(data, where=where), size), dtype=np.uint8)


def to_png(array: NDArray[np.uint8]) -> bytes:
    """PNG bytes of pixels uint8 [height, width, 3]."""
    pil = require("PIL.Image", "visual")
    out = io.BytesIO()
    pil.fromarray(array).save(out, format="PNG")
    return out.getvalue()

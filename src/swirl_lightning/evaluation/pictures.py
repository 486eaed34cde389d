"""Pictures for people: rows of images with captions, strips, animations."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swirl_lightning.codecs.base import Codec
from swirl_lightning.codecs.image_pixels import load_rgb, pixels, to_png
from swirl_lightning.hints import require

Cell = tuple[bytes, str]
"""An encoded image and what stands under it."""

_MARGIN = 4


def grid(rows: Sequence[Sequence[Cell]], side: int = 128) -> NDArray[np.uint8]:
    """Rows of captioned images on white.

    Args:
        rows: images with captions; a caption may have several lines.
        side: side of an image in the grid; small images are enlarged without smoothing, so that pixels stay pixels.

    Returns:
        uint8 [height, width, 3].
    """
    pil, draw_module, fonts = (require(f"PIL.{name}", "visual") for name in ("Image", "ImageDraw", "ImageFont"))
    font = fonts.load_default(size=11)
    lines = max((caption.count("\n") + 1 for row in rows for _, caption in row), default=1)
    step_x, step_y = side + _MARGIN, side + 14 * lines + _MARGIN
    width = _MARGIN + step_x * max((len(row) for row in rows), default=0)
    canvas = pil.new("RGB", (width, _MARGIN + step_y * len(rows)), "white")
    draw = draw_module.Draw(canvas)
    for j, row in enumerate(rows):
        for i, (image, caption) in enumerate(row):
            left, top = _MARGIN + i * step_x, _MARGIN + j * step_y
            canvas.paste(_enlarged(image, side), (left, top))
            draw.multiline_text((left, top + side + 1), _fitted(caption, draw, font, side), fill="black", font=font, spacing=2)
    return np.asarray(canvas)


def animation(images: Sequence[bytes], side: int = 256, milliseconds: int = 600) -> bytes:
    """An endless GIF of images.

    Args:
        images: encoded images, in order.
        side: side in pixels.
        milliseconds: how long each is shown.

    Returns:
        GIF bytes.
    """
    frames = [_enlarged(image, side) for image in images]
    out = io.BytesIO()
    frames[0].save(out, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return out.getvalue()


def _enlarged(data: bytes, side: int) -> Any:
    pil = require("PIL.Image", "visual")
    image = load_rgb(data)
    method = pil.Resampling.NEAREST if max(image.size) <= side else pil.Resampling.BICUBIC
    return image.resize((side, side), method)


def _fitted(caption: str, draw: Any, font: Any, side: int) -> str:
    """Lines cut to the width of an image."""
    kept = []
    for line in caption.split("\n"):
        while line and draw.textlength(line, font=font) > side:
            line = line.removesuffix("…")[:-1] + "…"
        kept.append(line)
    return "\n".join(kept)


def as_files(codec: Codec, images: Mapping[str, Any], folder: Path, number: int) -> dict[str, object]:
    """Writes images, token images among them, as PNG files.

    Args:
        codec: makes pictures of token images.
        images: by name.
        folder: where to; made if missing.
        number: of the row.

    Returns:
        Paths by name, relative to the place of the folder.
    """
    folder.mkdir(exist_ok=True)
    paths: dict[str, object] = {}
    for name, image in images.items():
        file = folder / f"{number:06d}-{name}.png"
        file.write_bytes(to_png(pixels(codec.render(image), None)))  # type: ignore[arg-type]  # images are bytes
        paths[name] = str(file.relative_to(folder.parent))
    return paths

"""Every kind of image file that a data set may hold: read as a person sees it, or refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest

from tests.visual import encoded

Image = pytest.importorskip("PIL.Image")

from swirl_lightning.codecs.image_pixels import ImageError, load_rgb, pixels, square, to_png  # noqa: E402

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], dtype=np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_png_of_pixels_reads_back_exactly():
    assert np.array_equal(np.asarray(load_rgb(to_png(RGB))), RGB)


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    red = np.asarray(load_rgb(encoded(image, "JPEG", quality=100)))
    assert red.shape == (4, 4, 3)
    assert (red[..., 0] > 240).all()
    assert (red[..., 1:] < 15).all()


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert np.asarray(load_rgb(encoded(image, "PNG"))).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_a_palette_with_a_transparent_colour_is_laid_on_white():
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 0, 0, 255])
    data = encoded(image, "PNG", transparency=0)
    assert np.asarray(load_rgb(data)).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_sixteen_bits_become_eight():
    image = Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))
    data = encoded(image, "PNG")
    assert Image.open(io.BytesIO(data)).mode.startswith("I")
    assert np.asarray(load_rgb(data))[0, :, 0].tolist() == [0, 100, 255]


def test_floating_point_pixels_are_refused():
    data = encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF")
    with pytest.raises(ImageError, match="unknown range"):
        load_rgb(data, where="row 3")


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 1)), (6, (0, 1)), (8, (1, 0))])
def test_exif_orientation_is_applied(orientation, corner):
    array = np.zeros((16, 16, 3), dtype=np.uint8)
    array[:8, :8] = 255  # white in the top left as stored
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[0x0112] = orientation
    seen = np.asarray(load_rgb(encoded(image, "JPEG", quality=100, exif=exif)))
    y, x = corner
    assert seen[y * 8 + 4, x * 8 + 4].min() > 240
    assert (seen > 128).mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("data", [b"", b"not an image", to_png(RGB)[:40], to_png(NOISE)[:-2000]])
def test_corrupt_images_are_refused_with_their_place(data):
    with pytest.raises(ImageError, match=r"frames\.parquet, row 7: not a readable image"):
        load_rgb(data, where="frames.parquet, row 7")


def bomb(side):
    """A PNG of a few kilobytes that unpacks to ``side`` x ``side`` pixels of one bit."""
    row = b"\0" * (1 + side // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_008, 20_000])
def test_a_decompression_bomb_is_refused_before_it_unpacks(side):
    data = bomb(side)
    assert len(data) < 80_000
    with pytest.raises(ImageError, match="more than 64000000"):
        load_rgb(data)


def test_the_middle_square_is_taken():
    array = np.zeros((8, 24, 3), dtype=np.uint8)
    array[:, 8:16] = 200
    assert (pixels(to_png(array), 8) == 200).all()
    assert square(Image.fromarray(array), 4).size == (4, 4)

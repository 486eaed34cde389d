"""Measures of images by hand."""

import pytest

pytest.importorskip("PIL")

from swirl_lightning.metrics.images import DecodedSuccess, ImageSimilarity
from tests.visual import picture


def corner(image):
    """A reader: is the top left corner, and is the bottom right one, red?"""
    from swirl_lightning.codecs.image_pixels import pixels

    seen = pixels(image, None)
    return [bool(seen[0, 0, 0] > 200), bool(seen[-1, -1, 0] > 200)]


def test_success_is_of_the_world_that_the_image_shows():
    pairs = {
        "rendered": [picture(0, 0), picture(4, 4), picture(12, 12)],
        "observed": [picture(0, 0, colour=(255, 0, 0)), picture(0, 0), picture(0, 0)],
    }
    whole, cells = DecodedSuccess(f"{__name__}:corner"), DecodedSuccess(f"{__name__}:corner", cells=True)
    for metric in (whole, cells):
        metric.update(**pairs)
    assert float(whole.compute()) == pytest.approx(1 / 3)
    assert float(cells.compute()) == pytest.approx((2 + 1 + 0) / 6)


def test_similarity():
    import math

    same, shifted = ImageSimilarity("psnr"), ImageSimilarity("psnr")
    same.update([picture(4, 4)], [picture(4, 4)])
    assert float(same.compute()) == 100.0
    shifted.update([picture(0, 0, colour=(30, 30, 30))], [picture(0, 0, colour=(20, 20, 20))])
    error = 10**2 * 16 / 256  # sixteen of 256 pixels differ by ten
    assert float(shifted.compute()) == pytest.approx(10 * math.log10(255**2 / error), rel=1e-4)
    structure = ImageSimilarity("ssim")
    structure.update([picture(4, 4), picture(8, 8)], [picture(4, 4), picture(0, 0)])
    assert 0.3 < float(structure.compute()) < 1.0
    with pytest.raises(ValueError, match="psnr or ssim"):
        ImageSimilarity("mse")

"""Training of an image codec: what stays the same must keep its code, and reconstructions are read."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("PIL")

from swirl_lightning.codec_module import CodecModule, _encoded
from swirl_lightning.codecs.image_pixels import pixels


def module(**options):
    torch.manual_seed(0)
    return CodecModule(size=16, codes=8, channels=(4, 4, 4), norm_groups=2, code_dim=2, **options)


def quadrants(image):
    """A reader: is the middle of each quarter bright?"""
    seen = pixels(image, None)
    return [bool(seen[y, x].max() > 128) for y in (4, 12) for x in (4, 12)]


def test_cells_whose_pixels_stay_are_found():
    first = torch.zeros(2, 3, 16, 16)
    second = first.clone()
    second[1, 2, 7, 8] = 1.0  # one channel of one pixel, in the second row and third column of cells
    same = module()._same(first, second)
    assert same.shape == (2, 4, 4)
    assert (~same).nonzero().tolist() == [[1, 1, 2]]


def test_change_is_of_the_cells_that_stay_and_does_not_depend_on_the_scale():
    latents, others = torch.randn(2, 4, 4, 3), torch.randn(2, 4, 4, 3)
    same = torch.rand(2, 4, 4) < 0.5
    expected = ((latents - others) ** 2)[same].mean() / latents.flatten(0, 2).var(0).mean()
    change = CodecModule._change
    assert float(change(latents, others, same)) == pytest.approx(float(expected), rel=1e-3)
    assert float(change(10 * latents, 10 * others, same)) == pytest.approx(float(expected), rel=1e-3)
    assert float(change(latents, others, torch.zeros(2, 4, 4, dtype=torch.bool))) == 0.0


def test_steadiness_can_be_learned():
    model = module()
    first = torch.rand(8, 3, 16, 16) * 2 - 1
    second = first.clone()
    second[:, :, :4, :4] = torch.rand(8, 3, 4, 4) * 2 - 1
    same = model._same(first, second)
    assert int(same.sum()) == 8 * 15
    optimizer = torch.optim.Adam(model.network.parameters(), lr=1e-2)
    changes = []
    for _ in range(15):
        change = model._change(model._latents_of(first), model._latents_of(second), same)
        optimizer.zero_grad()
        change.backward()
        optimizer.step()
        changes.append(float(change.detach()))
    assert changes[-1] < 0.5 * changes[0]


def test_what_reconstructions_show_is_measured():
    model = module(reader=f"{__name__}:quadrants")
    white, black = torch.full((1, 3, 16, 16), 255.0), torch.zeros(1, 3, 16, 16)
    half = black.clone()
    half[..., :8] = 255.0
    model.readings.update(_encoded(torch.cat([white, half])), _encoded(torch.cat([white, white])))
    assert {name: float(value) for name, value in model.readings.compute().items()} == {
        "val/cells_right": 0.75,
        "val/worlds_right": 0.5,
    }
    assert not len(module().readings)

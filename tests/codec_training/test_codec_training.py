"""Training of an image codec: tiles by themselves, and reconstructions are read."""

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("PIL")

from swirl_lightning.codec_training.frames import FrameDataModule
from swirl_lightning.codec_training.module import CodecModule, _encoded
from swirl_lightning.codecs.image_models import split_tiles
from swirl_lightning.codecs.image_pixels import pixels, to_png


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


def coloured(*rows):
    """Images [1, 3, 16, 16] of 4 x 4 tiles, a digit each: its brightness."""
    cells = torch.tensor([[int(digit) for digit in row] for row in rows]) * 28
    return cells.repeat_interleave(4, 0).repeat_interleave(4, 1).to(torch.uint8).expand(1, 3, 16, 16)


def test_with_tiles_a_code_depends_on_its_own_cell_only():
    first, second = coloured("0123", "4567", "7654", "3210"), coloured("0123", "4967", "7654", "3210")
    whole, tiled = module(), module(tile=4)
    for model, exact in ((whole, False), (tiled, True)):
        model.eval()
        with torch.no_grad():
            latents = [model._pass(split(model, image).float() / 127.5 - 1)[3] for image in (first, second)]
        same = [bool(torch.equal(a, b)) for a, b in zip(*(x.flatten(0, 2) for x in latents), strict=True)]
        assert same.count(False) == 1 if exact else same.count(False) > 1
    image, codes = tiled._rebuilt(first)
    assert image.shape == (1, 3, 16, 16)
    assert torch.equal(codes[0, 0], codes[0, 3].flip(0))
    assert torch.allclose(image[..., :4, :4], image[..., 12:, 12:])


def split(model, image):
    return image if model.tile is None else split_tiles(image, model.tile)


def test_tiles_are_learned_as_often_as_they_are_distinct(tmp_path):
    frames = [quartered((0, 0, 0, 255)), quartered((0, 0, 0, 0)), quartered((255, 0, 99, 0))]
    rows = [
        {"state": a, "next_state": b, "action": "a", "episode": f"e{i}", "step": 0, "split": split}
        for i, (a, b, split) in enumerate([(frames[0], frames[1], "train"), (frames[2], frames[2], "val")])
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "transitions.parquet")
    data = FrameDataModule(str(tmp_path), size=16, tile=8)
    data.setup()
    (batch,) = list(data.train_dataloader())
    assert sorted(int(tile.max()) for tile in batch) == [0, 255]
    images, others, _ = next(iter(data.val_dataloader()))
    assert images.shape == others.shape == (1, 3, 16, 16)


def quartered(values):
    """PNG bytes of 16 x 16 pixels with four grey quarters."""
    return to_png(np.array(values, np.uint8).reshape(2, 2, 1).repeat(8, 0).repeat(8, 1).repeat(3, 2))


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="cut into tiles of 6 pixels"):
        module(tile=6)
    with pytest.raises(ValueError, match="set one of them"):
        module(tile=8, crop=8)


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


def seen_in_ten_steps(monkeypatch, tmp_path, **options):
    """Side of the images and whether the codebook is in, at each of ten steps of a training on whole images."""
    model, seen = module(**options), []
    original = model._pass

    def watched(images, quantised=True):
        seen.append((images.shape[-1], quantised))
        return original(images, quantised)

    monkeypatch.setattr(model, "_pass", watched)
    images = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8)
    places = torch.full((40, 2), 5)
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, images, places), batch_size=4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=str(tmp_path), **quiet)
    trainer.fit(model, batches)
    return seen


def test_first_squares_then_whole_images_and_the_codebook_after_a_while(monkeypatch, tmp_path):
    seen = seen_in_ten_steps(monkeypatch, tmp_path, crop=8, cropped=0.3, continuous=0.5)
    assert [side for side, _ in seen] == [8] * 3 + [16] * 7
    assert [quantised for _, quantised in seen] == [False] * 5 + [True] * 5


def test_the_commitment_weighs_what_pulls_latents_to_their_code():
    images = coloured("0123", "4567", "7654", "3210").float() / 127.5 - 1
    losses = {beta: float(module(commitment=beta)._pass(images)[1]) for beta in (0.0, 0.25, 1.0)}
    assert losses[0.0] > 0
    for beta in (0.25, 1.0):  # ||sg(z) - e||^2 + beta ||z - sg(e)||^2: both distances are the same
        assert losses[beta] == pytest.approx((1 + beta) * losses[0.0], rel=1e-5)

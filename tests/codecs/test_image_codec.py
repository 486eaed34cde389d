"""Images as tokens: layout, exactness, cache, constraints, files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from swirl_lightning.codecs import TextCodec, mask_for
from swirl_lightning.types import Role
from tests.visual import CODES, GRID, SIZE, picture, tokenizer, vq_network

pytest.importorskip("diffusers")
pytest.importorskip("PIL")

from swirl_lightning.codecs.image import CODEC, ImageCodec, image_codec, load_codec
from swirl_lightning.codecs.image_cache import CodeCache, image_hash
from swirl_lightning.codecs.image_models import DiffusersVQ, Tiled, load_image_model
from swirl_lightning.codecs.image_pixels import ImageError, pixels


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIRL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def codec():
    return image_codec(tokenizer(), DiffusersVQ(vq_network()))


def test_an_image_is_begin_codes_end_after_the_text_vocabulary(codec):
    text = len(codec.tokenizer)
    ids = codec.encode_state(picture(4, 4))
    assert ids[0] == codec.tokenizer.convert_tokens_to_ids("<boi>")
    assert ids[-1] == codec.tokenizer.convert_tokens_to_ids("<eoi>")
    assert len(ids) == GRID**2 + 2
    assert all(text <= token < text + CODES == codec.vocab_size for token in ids[1:-1])
    assert len(set(ids[1:-1])) > 1


def test_codes_and_pixels_are_those_of_the_network(codec):
    network = vq_network().eval()
    image = picture(4, 8)
    with torch.no_grad():
        inputs = torch.from_numpy(pixels(image, SIZE).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        latents = network.encode(inputs).latents
        expected = network.quantize(latents)[2][2]
        rebuilt = network.decode(latents).sample[0]
    assert list(codec.codes(image)) == expected.tolist()
    shown = pixels(codec.render(codec.canonical(image)), SIZE)
    difference = shown - ((rebuilt.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(difference).max() <= 0.51


def test_a_drawn_state_reads_back_as_the_same_tokens(codec):
    ids = codec.encode_state(picture(0, 8))
    state = codec.decode_state([*ids, codec.eos_id])
    assert codec.encode_state(state) == ids
    assert codec.canonical(picture(0, 8)) == state == codec.canonical(state)
    assert codec.render(picture(0, 8)) == picture(0, 8)  # an image is its own picture


def test_liquid_layout():
    codec = ImageCodec(with_markers(), DiffusersVQ(vq_network()), first_code=256_000)
    assert codec.vocab_size == 256_000 + CODES
    assert min(codec.encode_state(picture())[1:-1]) >= 256_000
    assert not codec.constraint(Role.IDM).allowed([])[len(codec.tokenizer) :].any()


def with_markers():
    made = tokenizer()
    made.add_tokens(["<boi>", "<eoi>"], special_tokens=True)
    return made


def test_codes_must_come_after_the_text_and_markers_must_exist():
    with pytest.raises(ValueError, match="overlaps the text vocabulary"):
        ImageCodec(with_markers(), DiffusersVQ(vq_network()), first_code=10)
    with pytest.raises(ValueError, match="'<boi>' is no single token"):
        ImageCodec(tokenizer(), DiffusersVQ(vq_network()))


def test_the_fwm_is_held_to_one_whole_image(codec):
    constraint = codec.constraint(Role.FWM)
    ids = [*codec.encode_state(picture(4, 4)), codec.eos_id]
    for n in range(len(ids)):
        allowed = constraint.allowed(ids[:n])
        assert allowed[ids[n]]
        assert int(allowed.sum()) == (CODES if 0 < n <= GRID**2 else 1)
    masks = mask_for(constraint, [ids[:3], ids[:5], ids[: GRID**2 + 1], ()], "cpu", width=codec.vocab_size + 3)
    assert masks.sum(1).tolist() == [CODES, CODES, 1, 1]


def test_the_idm_is_held_to_text(codec):
    allowed = codec.constraint(Role.IDM).allowed([])
    assert allowed[codec.eos_id]
    assert not allowed[codec.first_code :].any()
    assert not allowed[[codec.begin_id, codec.end_id]].any()
    assert codec.decode_action([*codec.encode_action("turn left"), codec.eos_id]) == "turn left"
    assert codec.begin_id not in codec.encode_action("<boi>")  # data never spells markers


def test_what_is_no_image_is_refused(codec):
    ids = codec.encode_state(picture())
    for wrong in (ids[:-1], ids[1:], [*ids[:-2], codec.eos_id, ids[-1]], [], [codec.eos_id]):
        with pytest.raises(ValueError, match="do not spell one image of 16 codes"):
            codec.decode_state(wrong)
    with pytest.raises(TypeError, match="text state"):
        codec.encode_state("agent 1 2")
    with pytest.raises(ImageError, match="not a readable image"):
        codec.encode_state(b"agent 1 2")
    with pytest.raises(TypeError, match="needs an image codec"):
        TextCodec(tokenizer()).encode_state(picture())
    other = image_codec(tokenizer(), DiffusersVQ(vq_network(seed=1)))
    with pytest.raises(ValueError, match="cannot be read by codec"):
        other.encode_state(codec.canonical(picture()))


def test_codes_are_cached_on_disk_by_codec_and_image(codec):
    images = [picture(x, y) for x in range(4) for y in range(4)]
    codec.prepare(images)
    again = image_codec(tokenizer(), DiffusersVQ(vq_network()))
    calls = []
    again.images.encode = lambda stack: calls.append(len(stack))
    assert [again.codes(image) for image in images] == [codec.codes(image) for image in images]
    assert not calls
    other = DiffusersVQ(vq_network(seed=1))
    assert other.key != codec.images.key
    assert not CodeCache(other.key).get([image_hash(image) for image in images])


def test_two_processes_share_a_cache(tmp_path):
    script = (
        "import sys; from pathlib import Path; from swirl_lightning.codecs.image_cache import CodeCache\n"
        "cache = CodeCache('k', Path(sys.argv[1]))\n"
        "for i in range(40): cache.put({bytes([int(sys.argv[2]), i]): bytes([i])})\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(i)], env={**os.environ, "OMP_NUM_THREADS": "1"})
        for i in range(2)
    ]
    assert [process.wait() for process in running] == [0, 0]
    found = CodeCache("k", tmp_path).get([bytes([i, j]) for i in range(2) for j in range(40)])
    assert len(found) == 80
    assert found[bytes([1, 7])] == bytes([7])


def test_a_saved_codec_is_the_same_codec(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    again = load_codec(tmp_path)
    assert isinstance(again, ImageCodec)
    assert again.images.key == codec.images.key
    assert again.encode_state(picture(8, 4)) == codec.encode_state(picture(8, 4))
    state = codec.canonical(picture(8, 4))
    assert again.render(state) == codec.render(state)


def test_a_folder_without_codec_is_text(tmp_path):
    tokenizer().save_pretrained(str(tmp_path))
    assert type(load_codec(tmp_path)) is TextCodec


def test_codec_and_model_of_different_code_counts_are_refused(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / CODEC).read_text())
    (tmp_path / CODEC).write_text(json.dumps({**settings, "codes": 8192}))
    with pytest.raises(ValueError, match="made for 8192 codes, but the image model in 'image_model' has 24"):
        load_codec(tmp_path)


def test_an_unknown_or_missing_image_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="swirl codec"):
        load_image_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="'llama' is no image model"):
        load_image_model(tmp_path)


@pytest.fixture
def tiled():
    """Images of 32 x 32 pixels in four tiles of 16, 8 x 8 codes."""
    return Tiled(DiffusersVQ(vq_network()), 2 * SIZE)


def test_a_tile_has_the_codes_and_pixels_of_an_image_of_its_own(tiled):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 2 * SIZE, 2 * SIZE), dtype=torch.uint8, generator=generator)
    images[2] = images[0]
    images[1, :, SIZE:, :SIZE] = images[0, :, :SIZE, SIZE:]
    grids = tiled.encode(images).view(3, 2 * GRID, 2 * GRID)
    assert torch.equal(grids[0], grids[2])
    assert torch.equal(grids[1, GRID:, :GRID], grids[0, :GRID, GRID:])
    alone = tiled.model.encode(images[:1, :, :SIZE, SIZE:])
    assert torch.equal(alone.view(GRID, GRID), grids[0, :GRID, GRID:])
    rebuilt = tiled.decode(grids.flatten(1))
    assert rebuilt.shape == images.shape
    difference = rebuilt[0, :, :SIZE, SIZE:].int() - tiled.model.decode(alone)[0]
    assert difference.abs().max() <= 1  # rounding: another batch
    assert tiled.encode(images[:0]).shape == (0, 4 * GRID**2)


def test_tiles_are_saved_beside_their_model(tiled, tmp_path):
    made = image_codec(tokenizer(), tiled)
    assert made.length == (2 * GRID) ** 2
    made.save_pretrained(tmp_path)
    loaded = load_codec(tmp_path)
    assert isinstance(loaded.images, Tiled)
    assert loaded.images.key == tiled.key != tiled.model.key
    image = picture(8, 16, size=2 * SIZE)
    assert loaded.encode_state(image) == made.encode_state(image)
    with pytest.raises(ValueError, match="images of 24 pixels cannot be cut into tiles of 16"):
        Tiled(tiled.model, 24)
    with pytest.raises(ValueError, match=r"must be \[N, 3, 32, 32\]"):
        tiled.encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))

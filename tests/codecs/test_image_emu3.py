"""Emu3's tokenizer of videos as a codec of images."""

import pytest
import torch
from transformers import Emu3VQVAE, Emu3VQVAEConfig

pytest.importorskip("PIL")

from swirl_lightning.codecs.image_models import Emu3VQ, load_image_model


def test_codes_and_pixels_are_those_of_transformers(tmp_path):
    sizes = {"embed_dim": 4, "latent_channels": 4, "base_channels": 32, "hidden_size": 32, "channel_multiplier": [1, 1]}
    more = {"num_res_blocks": 1, "num_attention_heads": 1, "attn_resolutions": [], "double_latent": False}
    torch.manual_seed(0)
    network = Emu3VQVAE(Emu3VQVAEConfig(codebook_size=32, image_size=16, **sizes, **more)).eval()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    Emu3VQ(network).save(tmp_path)
    model = load_image_model(tmp_path)
    assert (model.size, model.grid, model.codes, model.key) == (16, 8, 32, Emu3VQ(network).key)
    codes = model.encode(images)
    with torch.no_grad():
        tokens = network.encode(images.float() / 127.5 - 1, torch.tensor([[16, 16]] * 3)).image_tokens
        pixels = network.decode(torch.stack(tokens))
    assert torch.equal(codes, torch.stack(tokens).flatten(1))
    assert len(codes.unique()) > 1
    assert torch.equal(model.decode(codes), ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))

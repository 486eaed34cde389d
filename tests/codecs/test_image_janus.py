"""The VQ-VAE of Janus (LlamaGen) as a codec."""

import pytest
import torch
from transformers import JanusVQVAE, JanusVQVAEConfig

pytest.importorskip("PIL")

from swirl_lightning.codecs.image_models import JanusVQ, load_image_model


@torch.no_grad()
def test_codes_and_pixels_are_those_of_transformers(tmp_path):
    torch.manual_seed(0)
    config = JanusVQVAEConfig(
        embed_dim=4,
        num_embeddings=12,
        latent_channels=8,
        base_channels=32,
        channel_multiplier=[1, 1],
        num_res_blocks=1,
        num_patches=4,
    )
    network = JanusVQVAE(config).eval()
    network.quantize.embedding.weight.normal_()
    JanusVQ(network).save(tmp_path)
    model = load_image_model(tmp_path)
    assert (model.size, model.grid, model.codes, model.key) == (8, 4, 12, JanusVQ(network).key)
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    codes = model.encode(images)
    assert torch.equal(codes, network.encode(images.float() / 127.5 - 1).image_tokens.view(3, 16))
    expected = ((network.decode(codes).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(model.decode(codes), expected)

"""Tiny image worlds for tests: a random VQ model, a byte-level tokenizer, coloured squares that move."""

import io

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SIZE, GRID, CODES = 16, 4, 24


def vq_network(seed=0, codes=CODES):
    """A random ``diffusers.VQModel`` of 16 x 16 pixels and 4 x 4 codes that uses many of its codes."""
    diffusers = pytest.importorskip("diffusers")
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = diffusers.VQModel(
            sample_size=SIZE,
            num_vq_embeddings=codes,
            vq_embed_dim=3,
            latent_channels=3,
            block_out_channels=(4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=2,
            mid_block_add_attention=False,
        )
        network.quantize.embedding.weight.data.normal_()
    return network


def tokenizer():
    """A byte-level tokenizer without merges, with begin, end and padding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<s>", *alphabet])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="<pad>", bos_token="<s>")


def picture(x=0, y=0, size=SIZE, colour=(255, 40, 0)):
    """PNG bytes of a square on a dark ground."""
    from swirl_lightning.codecs.image_pixels import to_png

    array = np.full((size, size, 3), 20, dtype=np.uint8)
    array[y : y + size // 4, x : x + size // 4] = colour
    return to_png(array)


def encoded(image, kind, **options):
    """A PIL image in a file format."""
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()

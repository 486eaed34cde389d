"""Vocabulary extension: a causal LM of text learns ids for image codes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from swirl_lightning.codecs.image import ImageCodec, image_codec
from swirl_lightning.codecs.image_models import load_image_model
from swirl_lightning.world_model.loading import load_causal_lm


@torch.no_grad()
def extend_vocabulary(model: PreTrainedModel, codec: ImageCodec, text_tokens: int, seed: int = 0) -> None:
    """Gives a model embeddings and logits for every id of a codec; what it knew of text stays as it was.

    New rows (markers and codes, also where the model had unused rows for padding) are drawn around the mean of the text rows
    with their standard deviation, in the embeddings and, where it has weights of its own, in the output head.

    Args:
        model: changed in place.
        codec: whose ids the model must know.
        text_tokens: ids below this one were there before.
        seed: of the new rows.
    """
    embeddings = model.get_input_embeddings()
    if embeddings.num_embeddings < codec.vocab_size:  # type: ignore[operator]
        model.resize_token_embeddings(codec.vocab_size, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    tables: list[Tensor] = [model.get_input_embeddings().weight]  # type: ignore[list-item]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not tables[0]:
        tables.append(head.weight)  # type: ignore[arg-type]
    for table in tables:
        text = table[:text_tokens].float()
        noise = torch.randn(codec.vocab_size - text_tokens, table.shape[1], generator=generator).to(table.device)
        table[text_tokens : codec.vocab_size] = (text.mean(0) + text.std(0) * noise).to(table.dtype)


def extend(base: str, codec: Path, out: Path, first_code: int | None = None, dtype: str = "auto", seed: int = 0) -> Path:
    """Write a model folder that speaks images: a pretrained causal LM with ids for the codes of an image codec.

    Args:
        base: hub name or local folder of a causal LM.
        codec: folder of an image codec.
        out: folder to write.
        first_code: id of code 0; default: the first id after the tokenizer's, markers included.
        dtype: auto, float32 or bfloat16.
        seed: of the new rows.

    Returns:
        The folder.
    """
    model = load_causal_lm(base, dtype=dtype, seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    text_tokens = len(tokenizer)
    image_words = image_codec(tokenizer, load_image_model(codec), first_code)
    extend_vocabulary(model, image_words, text_tokens, seed)
    model.save_pretrained(str(out))
    image_words.save_pretrained(out)
    return out

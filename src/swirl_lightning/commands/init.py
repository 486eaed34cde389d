"""``swirl init``: a small untrained causal LM, its tokenizer trained on recorded transitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from swirl_lightning.codecs import TextCodec
from swirl_lightning.codecs.image import image_codec
from swirl_lightning.codecs.image_models import load_image_model
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.types import Transition, UnlabelledPair

_BETWEEN_FIELDS = r"""\s*(?:->|['"{}\[\]<>:,()=/#\n])(?:->|['"{}\[\]<>:,()=/#\s])*"""
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"


def train_tokenizer(
    rows: Sequence[Transition | UnlabelledPair], vocab_size: int, pieces: Literal["words", "fields"] = "words"
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the recorded text: lossless, with begin, end and padding tokens.

    Args:
        rows: transitions whose text it is trained on.
        vocab_size: most tokens; at least the 256 bytes and the three special tokens.
        pieces: what a token never crosses the borders of: words, as in GPT-2, or the fields of JSON, of calls and of
            tags, so that a name, a number or a whole message between quotes may be one token.

    Returns:
        The tokenizer.
    """
    if vocab_size < 259:
        raise ValueError(f"vocab_size must be at least 259 (256 bytes and 3 special tokens), got {vocab_size}")

    def texts() -> Iterator[str]:
        for row in rows:
            if isinstance(row.state, bytes):  # an image: only its actions and context are text
                yield f"State:\n\nNext state:\n\n{row.context}"
                if isinstance(row, Transition):  # by itself, too: a prompt without words around it has it right after an image
                    yield row.action
            else:
                yield f"State:\n{row.state}\nNext state:\n{row.next_state!s}\n{row.context}"
            if isinstance(row, Transition):
                yield f"Action: {row.action}"

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pieces == "fields":
        split = pre_tokenizers.Split(Regex(_BETWEEN_FIELDS), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def init(
    data: Path,
    out: Path,
    model_type: str = "llama",
    hidden_size: int = 128,
    layers: int = 4,
    heads: int = 4,
    intermediate_size: int | None = None,
    max_positions: int = 1024,
    vocab_size: int = 512,
    pieces: Literal["words", "fields"] = "words",
    codec: Path | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a model folder without weights: ``swirl fit`` then initialises them at random.

    Args:
        data: recorded transitions (folder, Parquet or JSONL).
        out: model folder to write.
        model_type: architecture, by its name in transformers (llama, qwen2, gpt2, ...).
        hidden_size: width.
        layers: number of layers.
        heads: attention heads.
        intermediate_size: width of the MLP; default: three times the hidden size.
        max_positions: longest sequence.
        vocab_size: most tokens of the tokenizer.
        pieces: tokens within ``words``, or within ``fields`` of JSON, of calls and of tags: shorter texts, for tools and pages.
        codec: folder of an image codec (`swirl codec`), where states are images; copied into the model folder.
        extra: further fields of the model configuration.
    """
    rows = list(read_transitions(data))
    if isinstance(rows[0].state, bytes) != (codec is not None):
        raise ValueError(
            f"{data} holds images: give --codec, the folder of an image codec" if codec is None else f"{data} holds no images"
        )
    tokenizer = train_tokenizer(rows, vocab_size, pieces)
    speech = TextCodec(tokenizer) if codec is None else image_codec(tokenizer, load_image_model(codec))
    fields: dict[str, Any] = {
        "vocab_size": speech.vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": intermediate_size or 3 * hidden_size,
        "max_position_embeddings": max_positions,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **(extra or {}),
    }
    AutoConfig.for_model(model_type, **fields).save_pretrained(out)
    speech.save_pretrained(out)
    if codec is None and (known := len(AutoTokenizer.from_pretrained(out))) > fields["vocab_size"]:
        # some architectures' tokenizers add special tokens of their own on loading (Qwen2: <|endoftext|>)
        AutoConfig.for_model(model_type, **{**fields, "vocab_size": known}).save_pretrained(out)
    print(f"{out}: {model_type}, {layers} layers of width {hidden_size}, {speech.vocab_size} token ids, no weights yet")


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    auto_cli(init, prog="swirl init", args=list(argv), as_positional=False)
    return 0

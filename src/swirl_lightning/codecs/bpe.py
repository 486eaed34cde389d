"""Tokenizers of one's own data: byte-level BPE, for small models from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from swirl_lightning.types import Transition, UnlabelledPair

Pieces = Literal["words", "fields"]
_BETWEEN_FIELDS = r"""\s*(?:->|['"{}\[\]<>:,()=/#\n])(?:->|['"{}\[\]<>:,()=/#\s])*"""
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"


def texts(rows: Iterable[Transition | UnlabelledPair]) -> Iterator[str]:
    """What a tokenizer learns from: states, contexts and, of labelled transitions, actions; nothing of an image.

    Args:
        rows: transitions, labelled or not.
    """
    for row in rows:
        if isinstance(row.state, bytes):  # an image: only its actions and context are text
            yield f"State:\n\nNext state:\n\n{row.context}"
            if isinstance(row, Transition):  # by itself, too: a prompt without words around it has it right after an image
                yield row.action
        else:
            yield f"State:\n{row.state}\nNext state:\n{row.next_state!s}\n{row.context}"
        if isinstance(row, Transition):
            yield f"Action: {row.action}"


def train_tokenizer(
    rows: Iterable[Transition | UnlabelledPair], vocab_size: int, pieces: Pieces = "words"
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
    tokenizer.train_from_iterator(texts(rows), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )

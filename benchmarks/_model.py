"""Writes the benchmark's model folders: random-weight Qwen2, 6 layers, width 256, vocabulary 8k, one token a word."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _shapes import EOS, FIRST_WORD, HEADS, INNER, KV_HEADS, LAYERS, VOCAB, WIDTH
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM


def tokenizer() -> PreTrainedTokenizerFast:
    """Words ``w3`` .. ``w8191`` between spaces; encoding and decoding are exact."""
    vocabulary = {"<pad>": 0, "<eos>": EOS, "<unk>": 2} | {f"w{i}": i for i in range(FIRST_WORD, VOCAB)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def config() -> Qwen2Config:
    """The model of issue 3."""
    return Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=32768,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
    )


def write(folder: Path) -> None:
    """Writes ``fwm`` and ``idm`` with different weights below ``folder``, and ``tokenizer``.

    The tokenizer lies apart: beside a Qwen2 configuration ``AutoTokenizer`` would rebuild it as Qwen2's own.
    """
    for seed, role in enumerate(("fwm", "idm")):
        torch.manual_seed(seed)
        Qwen2ForCausalLM(config()).save_pretrained(str(folder / role))
    tokenizer().save_pretrained(str(folder / "tokenizer"))


def matmul_rate(repeats: int) -> float:
    """FLOP per second of the model's largest products over 4,096 tokens, by ``best``."""
    tokens, weight = torch.randn(4096, WIDTH), torch.randn(INNER, WIDTH)
    return 2 * tokens.numel() * INNER / best(lambda: torch.nn.functional.linear(tokens, weight), repeats)


def best(call: Callable[[], object], repeats: int) -> float:
    """Fewest processor seconds (wall seconds with several threads) of a call, after one that is not counted."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    call()
    times = []
    for _ in range(repeats):
        started = clock()
        call()
        times.append(clock() - started)
    return min(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)

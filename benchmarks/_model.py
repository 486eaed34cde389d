"""Writes the benchmark's model folders: random-weight Qwen2 of a size, one token a word."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _shapes import EOS, FIRST_WORD, SIZES, SMALL, Size
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM


def tokenizer(vocab: int = SMALL.vocab) -> PreTrainedTokenizerFast:
    """Words ``w3``, ``w4``, ... between spaces; encoding and decoding are exact."""
    vocabulary = {"<pad>": 0, "<eos>": EOS, "<unk>": 2} | {f"w{i}": i for i in range(FIRST_WORD, vocab)}
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


def config(size: Size = SMALL) -> Qwen2Config:
    """The model's configuration."""
    return Qwen2Config(
        vocab_size=size.vocab,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        tie_word_embeddings=size.tied,
        max_position_embeddings=32768,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=0,
    )


def write(folder: Path, size: Size = SMALL) -> None:
    """Writes ``fwm`` and ``idm`` with different weights below ``folder``, and ``tokenizer``.

    The tokenizer lies apart: beside a Qwen2 configuration ``AutoTokenizer`` would rebuild it as Qwen2's own.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # drawing billions of numbers takes a CPU minutes
    for seed, role in enumerate(("fwm", "idm")):
        torch.manual_seed(seed)
        with device:
            model = Qwen2ForCausalLM(config(size))
        model.to(getattr(torch, size.dtype) if device.type == "cuda" else torch.float32).save_pretrained(str(folder / role))
    tokenizer(size.vocab).save_pretrained(str(folder / "tokenizer"))


def matmul_rate(repeats: int, size: Size = SMALL) -> float:
    """FLOP per second of the model's largest products over 4,096 tokens, by ``best``; in bfloat16 on a GPU."""
    kind: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16} if torch.cuda.is_available() else {}
    tokens, weight = torch.randn(4096, size.width, **kind), torch.randn(size.inner, size.width, **kind)
    return 2 * tokens.numel() * size.inner / best(lambda: torch.nn.functional.linear(tokens, weight), repeats)


def best(call: Callable[[], object], repeats: int) -> float:
    """Fewest processor seconds (wall seconds with several threads or a GPU) of a call, after one that is not counted."""
    gpu = torch.cuda.is_available()
    clock = time.process_time if torch.get_num_threads() == 1 and not gpu else time.perf_counter
    call()
    times = []
    for _ in range(repeats):
        started = clock()
        call()
        if gpu:
            torch.cuda.synchronize()
        times.append(clock() - started)
    return min(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    args = parser.parse_args()
    write(args.folder, SIZES[args.size])

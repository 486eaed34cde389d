"""Small random-weight models of every architecture that the shared-prefix path claims to serve."""

import random

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from swirl_lightning.scoring.scorer import prefer_shared_prefix
from swirl_lightning.types import ScoredRow

VOCAB = 120
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
ARCHITECTURES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_COMMON)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_COMMON)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(head_dim=8, **_COMMON)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"], **_COMMON)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1)
    ),
}


def build(name, *, shared=True):
    torch.manual_seed(0)
    model = ARCHITECTURES[name]().eval()
    if shared:
        prefer_shared_prefix(model)
    return model


def random_groups(groups, members, prompt, tail, seed=0):
    """Groups of rows with unequal prompts and tails; the first two members of every group are identical."""
    rng = random.Random(seed)
    made = []
    for _ in range(groups):
        ids = [rng.randrange(3, VOCAB) for _ in range(rng.randint(max(2, prompt // 2), prompt))]
        rows = [
            ScoredRow((*ids, *(rng.randrange(3, VOCAB) for _ in range(rng.randint(1, tail)))), len(ids)) for _ in range(members)
        ]
        made.append([rows[0], *rows[:-1]])
    return made

"""Perplexity of actions under a language model that is not trained (arXiv:2602.06130, Figure 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel


class FrozenLanguageModel:
    """A causal LM that only judges.

    Args:
        folder: Hub name or local folder with model and tokenizer.
        batch_size: Texts a forward pass.

    Raises:
        ValueError: if the tokenizer has neither a begin nor an end token to start a text with.
    """

    def __init__(self, folder: str | Path, batch_size: int = 64) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
        self.model.train(False).requires_grad_(False)
        self.batch_size = batch_size
        start = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        if start is None:
            raise ValueError(f"language model {folder}: its tokenizer has neither bos_token nor eos_token to start with")
        self.start = int(start)

    @torch.no_grad()
    def perplexity(self, texts: Sequence[str]) -> float:
        """``exp`` of the mean negative log-likelihood per token over all texts.

        Raises:
            ValueError: if the texts have no token.
        """
        total, tokens = 0.0, 0
        for begin in range(0, len(texts), self.batch_size):
            part = [self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts[begin : begin + self.batch_size]]
            width = max(len(ids) for ids in part)
            ids = torch.full((len(part), width + 1), self.start)
            mask = torch.zeros(len(part), width, dtype=torch.bool)
            for i, row in enumerate(part):
                ids[i, 1 : len(row) + 1] = torch.tensor(row, dtype=torch.long)
                mask[i, : len(row)] = True
            logits = self.model(input_ids=ids.to(self.model.device)).logits[:, :-1]  # causal: right padding changes nothing
            nll = cross_entropy(logits.transpose(1, 2).float(), ids[:, 1:].to(logits.device), reduction="none")
            total += float((nll.cpu() * mask).sum())
            tokens += int(mask.sum())
        if not tokens:
            raise ValueError("perplexity of texts without a single token")
        return math.exp(total / tokens)

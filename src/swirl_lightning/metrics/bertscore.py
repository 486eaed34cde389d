"""BERTScore through torchmetrics, with a model from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.text.bert import bert_score
from transformers import AutoModel, AutoTokenizer
from typing_extensions import override

from swirl_lightning.metrics.text import MeanOf, check_pairs

_LONGEST = 512  # tokens, as in the original implementation


class BertScore(MeanOf):
    """Mean BERTScore F1, in [0, 100], without idf weights and without rescaling. Cut texts are counted in ``truncated``.

    torchmetrics 1.9 pairs predictions with other rows' references when it is given several (Lightning-AI/torchmetrics#2728), so
    each pair is a call of its own.

    Args:
        folder: Folder with an encoder and its tokenizer; the usual one is ``roberta-large``, layer 17.
        num_layers: Hidden layer whose vectors are compared; None takes the last.
        **kwargs: of ``torchmetrics.Metric``.

    Raises:
        FileNotFoundError: if the folder is not there; nothing is downloaded.
        ValueError: if it holds no model, or fewer layers.
    """

    truncated: Tensor

    def __init__(self, folder: str | Path, num_layers: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (Path(folder) / "config.json").is_file():
            raise FileNotFoundError(
                f"BERTScore: {folder} is no folder with a model (config.json is missing). Nothing is downloaded here: on a "
                "machine with network run `hf download roberta-large --local-dir FOLDER`, copy the folder and name it"
            )
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._encoder = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._encoder.train(False).requires_grad_(False)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"BERTScore: {folder} holds no encoder with its tokenizer: {error}") from error
        layers = int(self._encoder.config.num_hidden_layers)
        if num_layers is not None and not 1 <= num_layers <= layers:
            raise ValueError(f"BERTScore: num_layers={num_layers}, but {folder} has layers 1 to {layers}")
        self.num_layers = num_layers
        positions = int(getattr(self._encoder.config, "max_position_embeddings", _LONGEST))
        padding = self._encoder.config.pad_token_id if self._encoder.config.model_type.endswith("roberta") else None
        self.max_length = min(_LONGEST, positions - (0 if padding is None else padding + 1))  # RoBERTa counts from padding + 1
        self.add_state("truncated", torch.tensor(0), dist_reduce_fx="sum")

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references)
        for prediction, reference in zip(predictions, references, strict=True):
            lengths = [len(ids) for ids in self._tokenizer([prediction, reference], verbose=False)["input_ids"]]
            self.truncated += sum(length > self.max_length for length in lengths)
            score = bert_score(
                [prediction],
                [reference],
                model=self._encoder,
                user_tokenizer=self._tokenizer,
                num_layers=self.num_layers,
                max_length=self.max_length,
                truncation=True,
                device=self.device,
            )
            self._add([100.0 * float(torch.as_tensor(score["f1"]).reshape(()))])

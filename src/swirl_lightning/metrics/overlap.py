"""Text overlap as others publish it: BLEU, StableToolBench's character BLEU, ROUGE-L. All in [0, 100]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from swirl_lightning.metrics.subsequence import lcs_length
from swirl_lightning.metrics.text import MeanOf, check_pairs

_ORDER = 4


class CorpusBleu(Metric):
    """sacreBLEU's corpus BLEU (tokenizer 13a, exponential smoothing), in [0, 100]; n-gram counts add up over ranks."""

    higher_is_better = True
    full_state_update = False
    matches: Tensor
    totals: Tensor
    lengths: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._bleu = BLEU(max_ngram_order=_ORDER, effective_order=True)
        self.add_state("matches", torch.zeros(_ORDER, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("totals", torch.zeros(_ORDER, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("lengths", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")  # predictions, references

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references)
        for prediction, reference in zip(predictions, references, strict=True):
            score = self._bleu.sentence_score(prediction, [reference])
            self.matches += torch.tensor(score.counts, device=self.matches.device)
            self.totals += torch.tensor(score.totals, device=self.totals.device)
            self.lengths += torch.tensor([score.sys_len, score.ref_len], device=self.lengths.device)

    @override
    def compute(self) -> Tensor:
        ours, true = self.lengths.tolist()
        score = BLEU.compute_bleu(self.matches.tolist(), self.totals.tolist(), ours, true, smooth_method="exp")
        return torch.tensor(float(score.score), device=self.matches.device)


class SentenceBleu(MeanOf):
    """Mean of sacreBLEU's sentence BLEU (effective order, so that short actions count), in [0, 100]."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._bleu = BLEU(max_ngram_order=_ORDER, effective_order=True)

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references)
        self._add(self._bleu.sentence_score(p, [r]).score for p, r in zip(predictions, references, strict=True))


class CharacterBleu(MeanOf):
    """Mean sentence BLEU-4 over characters, NLTK's smoothing method 3, in [0, 100]: StableToolBench's BLEU.

    Texts are compared as they are; :class:`~swirl_lightning.metrics.tools.ToolBleu` makes them of tool answers first.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._smoothing = SmoothingFunction().method3

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references)
        self._add(
            100.0 * float(sentence_bleu([list(r)], list(p), smoothing_function=self._smoothing))
            for p, r in zip(predictions, references, strict=True)
        )


class RougeL(MeanOf):
    """Mean ROUGE-L F-measure, in [0, 100]: words as in ``rouge-score`` without stemmer (runs of letters a-z and digits).

    ``rouge-score`` fills its table in plain Python, minutes for a web page; the longest common subsequence is computed here.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tokenizer = DefaultTokenizer(use_stemmer=False)

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references)
        self._add(self._f_measure(p, r) for p, r in zip(predictions, references, strict=True))

    def _f_measure(self, prediction: str, reference: str) -> float:
        ours, true = self._tokenizer.tokenize(prediction), self._tokenizer.tokenize(reference)
        return 200.0 * lcs_length(ours, true) / (len(ours) + len(true)) if ours and true else 0.0

"""BERTScore with a tiny encoder that the test makes."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from swirl_lightning.cli import main
from swirl_lightning.metrics.bertscore import BertScore

WORDS = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"])}
OURS = ["a b c d", "a", "e f", "g h i", "j j j j j"]
TRUE = ["a b c d", "b c", "e f g", "h", "j"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("bert")
    words = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(place)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **size)).save_pretrained(place)
    return place


def by_hand(folder, ours, true, layer=-1):
    """Greedy cosine matching of the words' vectors, the special tokens left out."""
    model = BertModel.from_pretrained(folder).eval()
    vectors = []
    for text in (ours, true):
        ids = torch.tensor([[2, *(WORDS[word] for word in text.split()), 3]])
        with torch.no_grad():
            vectors.append(normalize(model(ids, output_hidden_states=True).hidden_states[layer][0, 1:-1], dim=-1))
    likeness = vectors[0] @ vectors[1].T
    precision, recall = likeness.max(1).values.mean(), likeness.max(0).values.mean()
    return 100 * float(2 * precision * recall / (precision + recall))


def test_the_mean_of_pairs_by_hand(folder):
    metric = BertScore(folder)
    metric.update(predictions=OURS, references=TRUE)
    expected = [by_hand(folder, p, r) for p, r in zip(OURS, TRUE, strict=True)]
    assert float(metric.compute()) == pytest.approx(sum(expected) / len(expected), abs=1e-3)
    assert int(metric.truncated) == 0


def test_equal_texts_score_100_whatever_stands_beside_them(folder):
    """torchmetrics' own batches compare rows of different length with other rows' references."""
    metric = BertScore(folder)
    metric.update(predictions=OURS, references=OURS)
    assert float(metric.compute()) == pytest.approx(100.0, abs=1e-3)


def test_layers_and_long_texts(folder):
    metric = BertScore(folder, num_layers=1)
    metric.update(predictions=["a b"], references=["b a c"])
    assert float(metric.compute()) == pytest.approx(by_hand(folder, "a b", "b a c", layer=1), abs=1e-3)
    metric.update(predictions=["a " * 50], references=["b"])
    assert int(metric.truncated) == 1
    with pytest.raises(ValueError, match="layers 1 to 2"):
        BertScore(folder, num_layers=3)


def test_nothing_is_downloaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="hf download roberta-large"):
        BertScore("roberta-large")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no encoder with its tokenizer"):
        BertScore(tmp_path)


def test_swirl_score_starts_anew_with_every_split(folder, tmp_path, capsys):
    rows = [{"prediction": p, "reference": r, "split": s} for p, r, s in (("a b", "a b", "x"), ("c", "d " * 40, "y"))]
    file = tmp_path / "said.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["score", "text", str(file), "--bert_score", str(folder), "--bert_layer", "2"]) == 0
    first, second, both = json.loads((tmp_path / "said.scores.json").read_text())["results"]
    one, other = (result["measures"]["bert_score"] for result in (first, second))
    assert one == pytest.approx(100.0, abs=1e-3)
    assert other < 99
    assert both["measures"]["bert_score"] == pytest.approx((one + other) / 2)
    assert [result["bert_score_cut_texts"] for result in (first, second, both)] == [0, 1, 1]
    assert "bert_score" in capsys.readouterr().out

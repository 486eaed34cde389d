"""Agreement, overlap and likelihood against values worked out by hand."""

import math
import time
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swirl_lightning.metrics import (
    ChangedAccuracy,
    CharacterBleu,
    CopyRate,
    CorpusBleu,
    ExactMatch,
    LogProb,
    RougeL,
    SentenceBleu,
    TokenAccuracy,
    fwm_metrics,
    idm_metrics,
    subsequence,
    tool_response_text,
)
from swirl_lightning.metrics.subsequence import lcs_length, lcs_positions
from swirl_lightning.types import TokenScores


def value(metric, **fields):
    metric.update(**fields)
    return float(metric.compute())


def test_exact_match_and_copy_rate():
    assert value(ExactMatch(), predictions=["a", "b", b"\x01"], references=["a", "c", b"\x01"]) == pytest.approx(2 / 3)
    assert value(CopyRate(), predictions=["a", "b"], states=["a", "a"]) == 0.5


def test_token_accuracy_divides_by_the_longer_text():
    assert value(TokenAccuracy(), predictions=["a b"], references=["a b c d"]) == 0.5
    assert value(TokenAccuracy(), predictions=["a b c d"], references=["a x"]) == 0.25
    assert value(TokenAccuracy(), predictions=[""], references=[""]) == 1.0


def test_changed_accuracy_by_position():
    # cells 1 and 3 change; the prediction gets cell 3 right only
    assert value(ChangedAccuracy(), predictions=["# . @ X"], references=["# @ @ X"], states=["# . @ O"]) == 0.5
    # moving things counts both the cell that is left and the cell that is entered
    assert value(ChangedAccuracy(), predictions=["@ . ."], references=[". @ ."], states=["@ . ."]) == 0.0


def test_changed_accuracy_aligned_when_lengths_differ():
    metric = ChangedAccuracy()
    state, true = "you see a door", "the door opens you see a hall"
    assert value(metric, predictions=[true], references=[true], states=[state]) == 1.0
    metric.reset()
    assert value(metric, predictions=[state], references=[true], states=[state]) == 0.0


def test_changed_accuracy_without_a_change_is_nan():
    assert math.isnan(value(ChangedAccuracy(), predictions=["a"], references=["b"], states=["b"]))


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_copying_never_gets_a_change_right(state, true):
    x, y = " ".join(state), " ".join(true)
    copied = value(ChangedAccuracy(), predictions=[x], references=[y], states=[x])
    right = value(ChangedAccuracy(), predictions=[y], references=[y], states=[x])
    assert (math.isnan(copied) and math.isnan(right)) or (copied == 0.0 and right == 1.0)


def test_character_bleu_by_hand():
    # ref abcde, ours abcdx: 4/5, 3/4, 2/3, 1/2, no brevity penalty: (1/5)^(1/4)
    assert value(CharacterBleu(), predictions=["abcdx"], references=["abcde"]) == pytest.approx(100 * 0.2**0.25, rel=1e-5)
    # method 3: the first empty order counts 1/2 of a match, the next 1/4: 2/3, 1/2, (1/2)/1, (1/4)/1
    expected = 100 * (2 / 3 * 1 / 2 * 1 / 2 * 1 / 4) ** 0.25
    assert value(CharacterBleu(), predictions=["abx"], references=["aby"]) == pytest.approx(expected, rel=1e-5)
    assert value(CharacterBleu(), predictions=["", "zz"], references=["abc", "abc"]) == 0.0


def test_character_bleu_brevity_penalty():
    expected = 100 * math.exp(1 - 8 / 4)
    assert value(CharacterBleu(), predictions=["abcd"], references=["abcdefgh"]) == pytest.approx(expected, rel=1e-5)


def test_corpus_bleu_equals_sacrebleu_on_the_whole_corpus():
    from sacrebleu import corpus_bleu

    ours = ["the cat sat on the mat", "turn left now please", "go"]
    true = ["the cat is on the mat", "turn left now", "go north"]
    metric = CorpusBleu()
    for p, r in zip(ours, true, strict=True):
        metric.update(predictions=[p], references=[r])
    assert float(metric.compute()) == pytest.approx(corpus_bleu(ours, [true]).score, rel=1e-5)


def test_sentence_bleu_of_short_actions():
    assert value(SentenceBleu(), predictions=["turn left"], references=["turn left"]) == pytest.approx(100.0)


def test_rouge_l_by_hand():
    # longest common subsequence "the cat on": 3 of 4 and 3 of 5 words
    got = value(RougeL(), predictions=["the cat on mats"], references=["the cat is on it"])
    assert got == pytest.approx(100 * 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))


@given(st.text("ab c1.é\n", max_size=30), st.text("ab c1.é\n", max_size=30))
def test_rouge_l_equals_its_reference_package(ours, true):
    from rouge_score.rouge_scorer import RougeScorer

    expected = RougeScorer(["rougeL"]).score(true, ours)["rougeL"].fmeasure
    assert value(RougeL(), predictions=[ours], references=[true]) == pytest.approx(100 * expected, abs=1e-4)


def longest(a, b):
    """The table, cell by cell."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.text("abc", max_size=12), st.text("abc", max_size=12), st.sampled_from([0, 9, 1 << 28]))
def test_longest_common_subsequences(a, b, table):
    with mock.patch.object(subsequence, "_TABLE_BITS", table):  # small tables are halved again and again
        check_subsequence(a, b)


def check_subsequence(a, b):
    positions = sorted(lcs_positions(a, b))
    assert lcs_length(a, b) == len(positions) == longest(a, b)
    rest = iter(a)
    assert all(b[i] in rest for i in positions)  # in order


def test_long_pages_take_no_time():
    page = " ".join(f"w{i * i % 997}" for i in range(20_000))
    other = " ".join(word if i % 10 else "new" for i, word in enumerate(page.split())) + " end"
    began = time.monotonic()
    assert value(RougeL(), predictions=[other], references=[page]) == pytest.approx(200 * 18_000 / 40_001)
    assert value(ChangedAccuracy(), predictions=[page], references=[other], states=[page]) == 0.0
    assert value(ChangedAccuracy(), predictions=[other], references=[other], states=[page]) == 1.0
    assert time.monotonic() - began < 20  # the table would have 4e8 cells


def test_logprob_per_sequence_and_per_token():
    mask = torch.tensor([[True, True], [True, False]])
    scores = TokenScores(torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]), mask, torch.zeros(2, 2))
    assert value(LogProb("sequence"), scores=scores) == -3.0
    assert value(LogProb("token"), scores=scores) == -2.0


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ('{"error": "", "response": "ok"}', "ERROR: \nRESPONSE: ok"),
        # quotes that are not escaped: cut at the names, the tail stays, as in the published predictions
        ('{\n    "error": "",\n    "response": "{"a": 1}"\n}', 'ERROR: \nRESPONSE: {"a": 1}"\n}'),
        ("plain words", "plain words"),
        ("[1, 2]", "[1, 2]"),
    ],
)
def test_tool_response_text(output, text):
    assert tool_response_text(output) == text


def test_lists_of_different_length_are_refused_by_name():
    with pytest.raises(ValueError, match="predictions 1, references 2"):
        ExactMatch().update(predictions=["a"], references=["a", "b"])


def test_collections_hand_each_metric_its_fields():
    scores = TokenScores(torch.full((1, 2), -0.5), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2))
    fwm = fwm_metrics()
    fwm.update(predictions=["a b", "a c"], references=["a c", "a c"], states=["a b", "a b"], scores=scores)
    got = {name: float(x) for name, x in fwm.compute().items()}
    assert got["exact_match"] == got["changed_accuracy"] == got["copy_rate"] == 0.5
    assert got["logprob"] == -1.0
    assert got["logprob_per_token"] == -0.5
    assert set(idm_metrics(scored=False)) == {"exact_match", "token_accuracy", "bleu", "sentence_bleu", "rouge_l"}
    assert "bleu" not in set(fwm_metrics(text=False))


def test_equal_states_of_two_metrics_are_not_merged():
    metrics = fwm_metrics(scored=False)  # exact match and copy rate are both 1 of 2 after this batch, then they part
    metrics.update(predictions=["a", "b"], references=["a", "c"], states=["x", "b"])
    metrics.update(predictions=["a"], references=["a"], states=["x"])
    got = metrics.compute()
    assert float(got["exact_match"]) == pytest.approx(2 / 3)
    assert float(got["copy_rate"]) == pytest.approx(1 / 3)

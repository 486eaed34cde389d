"""Shared-prefix scores are the same numbers as the architecture's own forward pass, gradients included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.scoring.packing import common_prefix, micro_batches, pack, split_groups, tokens_of
from swirl_lightning.scoring.scorer import CausalScorer, ScoringPath, scoring_path
from swirl_lightning.types import ScoredRow
from tests.models import ARCHITECTURES, VOCAB, build, random_groups

SHAPES = {"short tails": (3, 4, 14, 6), "long tails": (2, 3, 6, 30)}


def directly(model, rows, temperature=1.0, allowed=None):
    """Log-probabilities and entropies of each row by a plain forward pass of its own."""
    logprobs, entropies = [], []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1].float()
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        logs = torch.log_softmax(logits / temperature, dim=-1)
        logprobs.append(logs.gather(-1, torch.tensor(row.ids[row.start :])[:, None])[:, 0])
        entropies.append(-(logs.exp() * logs.clamp(min=-1e30)).sum(-1))
    return logprobs, entropies


def gradients(model, total):
    model.zero_grad()
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_and_gradients_equal_the_plain_forward_pass(name, shape):
    model, groups = build(name), random_groups(*SHAPES[shape])
    rows = [row for group in groups for row in group]
    expected, entropy = directly(model, rows)
    wanted = gradients(model, sum(x.exp().sum() for x in expected))
    scores = CausalScorer(path=ScoringPath.SHARED)(model, groups, entropy=True)
    for i, row in enumerate(rows):
        n = len(row.ids) - row.start
        assert scores.mask[i].sum() == n
        torch.testing.assert_close(scores.logprobs[i, :n], expected[i], atol=2e-5, rtol=0)
        torch.testing.assert_close(scores.entropy[i, :n], entropy[i], atol=2e-5, rtol=0)
        assert not scores.logprobs[i, n:].any()
    found = gradients(model, (scores.logprobs.exp() * scores.mask).sum())
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, atol=1e-5 * max(1.0, float(value.abs().max())), rtol=1e-4)


class EvenTokens(TokenConstraint):
    vocab_size = VOCAB
    static = True

    def allowed(self, generated):
        return torch.arange(VOCAB) % 2 == 0


@pytest.mark.parametrize("path", list(ScoringPath))
def test_temperature_constraint_and_chunked_head(path):
    model = build("qwen2")
    groups = [
        [ScoredRow((*prompt, *(2 * t for t in tail)), 4) for tail in ((3, 4, 5), (3, 9), (7,))]
        for prompt in ((3, 4, 5, 6), (9, 8, 7, 6))
    ]
    rows = [row for group in groups for row in group]
    expected, _ = directly(model, rows, temperature=0.7, allowed=torch.arange(VOCAB) % 2 == 0)
    wanted = gradients(model, sum(x.sum() for x in expected))
    scorer = CausalScorer(path=path, logit_budget=2 * VOCAB)  # two positions at a time: recomputed in the backward pass
    scores = scorer(model, groups, temperature=0.7, constraint=EvenTokens())
    for i, values in enumerate(expected):
        torch.testing.assert_close(scores.logprobs[i, : len(values)], values, atol=2e-5, rtol=0)
    for key, value in gradients(model, scores.logprobs.sum()).items():
        torch.testing.assert_close(value, wanted[key], atol=2e-5, rtol=1e-4)


class OneMoreEach(TokenConstraint):
    """A completion may go up to token 40 first, then 20 higher with every token."""

    vocab_size = VOCAB

    def allowed(self, generated):
        return torch.arange(VOCAB) < 40 + 20 * len(generated)


@pytest.mark.parametrize("path", list(ScoringPath))
def test_rows_of_one_group_that_start_apart_follow_the_constraint_from_their_own_start(path):
    model, ids = build("llama"), (3, 4, 5, 35, 55, 75)
    group = [ScoredRow(ids, 3), ScoredRow((*ids[:3], 21, 22), 3), ScoredRow(ids, 2), ScoredRow((*ids[:4], 30), 4)]
    together = CausalScorer(path=path).score(model, [group], constraint=OneMoreEach())
    apart = CausalScorer(path=path).score(model, [[row] for row in group], constraint=OneMoreEach())
    assert apart.logprobs.isfinite().all()
    torch.testing.assert_close(together.logprobs, apart.logprobs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("budget", [40, 25, 1])  # one group a pass, groups divided, one row a pass
def test_micro_batches_add_up_to_the_whole_batch(budget):
    model, groups = build("llama"), random_groups(6, 4, 12, 8)
    rows = [row for group in groups for row in group]
    whole = gradients(model, CausalScorer()(model, groups).logprobs.sum())
    scorer = CausalScorer(token_budget=budget)
    batches = list(scorer.micro_batches(groups))
    assert sorted(n for batch in batches for part in batch for n in part) == list(range(len(rows)))
    assert len(batches) > 2
    model.zero_grad()
    for batch in batches:
        scorer(model, [[rows[n] for n in part] for part in batch]).logprobs.sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], atol=1e-4, rtol=1e-4)
    scored = scorer.score(model, groups)
    torch.testing.assert_close(scored.logprobs, CausalScorer().score(model, groups).logprobs, atol=1e-5, rtol=0)


def test_gradient_checkpointing_changes_nothing():
    model, groups = build("llama"), random_groups(2, 3, 10, 5)
    wanted = gradients(model, CausalScorer()(model, groups).logprobs.sum())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    for key, value in gradients(model, CausalScorer()(model, groups).logprobs.sum()).items():
        torch.testing.assert_close(value, wanted[key], atol=1e-5, rtol=1e-4)


def test_the_path_is_chosen_with_a_reason(caplog):
    caplog.set_level("INFO")
    assert scoring_path(build("gemma3")) is ScoringPath.SHARED
    assert scoring_path(build("llama", shared=False)) is ScoringPath.PLAIN
    assert "attention implementation is sdpa; plain rows equal within" in caplog.text


def test_a_row_without_a_prompt_is_refused():
    with pytest.raises(ValueError, match="cannot score"):
        pack([[ScoredRow((1, 2), 0)]], torch.device("cpu"))


ids = st.lists(st.integers(0, 3), min_size=2, max_size=8)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(ids, min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_packing_finds_every_scored_token(groups, data):
    rows = [[ScoredRow(tuple(r), data.draw(st.integers(1, len(r) - 1))) for r in group] for group in groups]
    packed = pack(rows, torch.device("cpu"))
    flat = [row for group in rows for row in group]
    tokens, positions = packed.ids[0].tolist(), packed.positions[0].tolist()
    assert len(tokens) <= sum(len(row.ids) for row in flat)
    seen = set()
    for source, target, r, offset in zip(
        packed.source.tolist(), packed.target.tolist(), packed.row.tolist(), packed.offset.tolist(), strict=True
    ):
        at = flat[r].start + offset
        assert target == flat[r].ids[at]
        assert positions[source] == at - 1
        assert tokens[source] == flat[r].ids[at - 1]
        seen.add((r, offset))
    assert seen == {(r, k) for r, row in enumerate(flat) for k in range(len(row.ids) - row.start)}


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=5))
def test_common_prefix(rows):
    n = common_prefix(rows)
    assert all(row[:n] == rows[0][:n] for row in rows)
    assert any(len(row) == n for row in rows) or len({row[n] for row in rows}) > 1


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 6))
def test_parts_of_groups_keep_equal_rows_together_and_within_the_budget(budget, count, members):
    groups = [[*group, group[0]] for group in random_groups(count, members, 10, 4, seed=budget)]
    rows = [row for group in groups for row in group]
    parts = split_groups(groups, budget)
    assert sorted(n for part in parts for n in part) == list(range(len(rows)))
    owner = [g for g, group in enumerate(groups) for _ in group]
    for part in parts:
        assert len({owner[n] for n in part}) == 1
        chosen = [rows[n] for n in part]
        assert tokens_of(chosen) <= budget or len({row.ids for row in chosen}) == 1
    home = {n: i for i, part in enumerate(parts) for n in part}
    assert all(home[a] == home[b] for a in home for b in home if owner[a] == owner[b] and rows[a].ids == rows[b].ids)


@given(st.integers(1, 200), st.integers(1, 12))
def test_every_group_is_in_one_micro_batch(budget, count):
    groups = random_groups(count, 2, 10, 4, seed=count)
    batches = list(micro_batches(groups, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(count))

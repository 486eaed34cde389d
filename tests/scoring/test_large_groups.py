"""What speeds scoring up changes no number: groups in turns, attention in parts and in blocks, a shorter last layer."""

import pytest
import torch
from transformers import Gemma3ForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from swirl_lightning.scoring import attention, causal_blocks, head
from swirl_lightning.scoring.head import _Selected
from swirl_lightning.scoring.packing import common_prefix, in_turns, pack, tokens_of
from swirl_lightning.scoring.scorer import CausalScorer, ScoringPath, prefer_shared_prefix
from swirl_lightning.types import ScoredRow
from tests.models import ARCHITECTURES, build, random_groups
from tests.scoring.test_scorer import SHAPES, EvenTokens, gradients


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_group_scored_in_turns_equals_plain_rows(name, monkeypatch):
    model, groups = build(name), random_groups(2, 6, 20, 9, seed=5)
    assert all(tokens_of(group) > 30 for group in groups)
    passes = []
    monkeypatch.setattr(
        "swirl_lightning.scoring.passes.tail_layout", lambda *args: passes.append(args) or attention.tail_layout(*args)
    )
    scored = CausalScorer(token_budget=12).score(model, groups, temperature=0.8)
    assert len(passes) > 4
    plain = CausalScorer(path=ScoringPath.PLAIN).score(model, groups, temperature=0.8)
    torch.testing.assert_close(scored.logprobs, plain.logprobs, atol=2e-5, rtol=0)
    assert torch.equal(scored.mask, plain.mask)


@pytest.mark.parametrize(
    "tails",
    [
        [(7, 8), (7, 8, 9), (7, 8)],  # members that are prefixes of one another, and equal ones
        [(7,), (7,), (7,)],  # all equal: nothing but a prefix
        [(7, 8, 9), (9, 8, 7), (5,)],
    ],
)
@pytest.mark.parametrize("start", [2, 6])
def test_equal_and_nested_members(tails, start):
    model, prompt = build("llama"), (3, 4, 5, 6, 7, 8)
    rows = [ScoredRow((*prompt, *tail), start) for tail in tails]
    rows.append(ScoredRow(prompt, start - 1))  # a row that ends inside the others' prefix: its own tail is empty
    plain = CausalScorer(path=ScoringPath.PLAIN)(model, [rows])
    shared = CausalScorer(path=ScoringPath.SHARED)(model, [rows])
    turns = CausalScorer(token_budget=2, path=ScoringPath.SHARED).score(model, [rows])
    for scores in (shared, turns):
        torch.testing.assert_close(scores.logprobs, plain.logprobs, atol=2e-5, rtol=0)
        assert torch.equal(scores.mask, plain.mask)


@pytest.mark.parametrize("shape", SHAPES)
def test_masked_attention_equals_attention_without_masks(shape, monkeypatch):
    model, groups = build("qwen2"), random_groups(*SHAPES[shape], seed=2)
    unmasked = gradients(model, CausalScorer()(model, groups).logprobs.sum())
    for rows in (True, False):  # the two masked forms, which other devices and sliding windows use
        with monkeypatch.context() as patch:
            patch.setattr(attention.PackedLayout, "without_masks", lambda *_: False)
            patch.setattr(attention.PackedLayout, "members_as_rows", rows)
            masked = gradients(model, CausalScorer()(model, groups).logprobs.sum())
        for name, value in masked.items():
            torch.testing.assert_close(value, unmasked[name], atol=1e-5 * max(1.0, float(value.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("length", [1, 64, 65, 150, 1600])
def test_causal_attention_in_blocks_equals_the_masked_one(length):
    torch.manual_seed(0)
    inputs = [torch.randn(2, length, 2, 8).transpose(1, 2).requires_grad_() for _ in range(3)]
    weight = torch.randn(2, 2, length, 8)
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    results = []
    for out in (
        causal_blocks.attend_causally(*inputs, 0.3),
        torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=seen, scale=0.3),
    ):
        results.append((out, *torch.autograd.grad((out * weight).sum(), inputs)))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def test_causal_attention_in_blocks_has_the_right_gradient(monkeypatch):
    monkeypatch.setattr(causal_blocks, "_BLOCK", 3)
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, 8, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *x: causal_blocks.attend_causally(*x, None), inputs)


@pytest.mark.parametrize("queries", [1, 64, 100])
def test_the_last_queries_alone_attend_as_among_all(queries):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 130, 8) for _ in range(3))
    whole = causal_blocks.attend_causally(query, key, value, None)
    found = causal_blocks.attend_causally(query[:, :, -queries:], key, value, None)
    torch.testing.assert_close(found, whole[:, :, -queries:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_last_layer_computes_what_is_scored(name):
    model, groups, sizes = build(name), random_groups(2, 4, 20, 4), []
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        last = [module for module in layer.mlp.modules() if not list(module.children())][-1]
        last.register_forward_hook(lambda module, args, out: sizes.append(out.shape[-2]))
    packed = pack(groups, torch.device("cpu"))
    CausalScorer(path=ScoringPath.SHARED)(model, groups).logprobs.sum().backward()
    assert sizes == [packed.ids.shape[1]] * (len(layers) - 1) + [len(packed.source.unique())]
    assert "forward" not in vars(layers[-1].mlp)


def test_a_last_layer_with_a_sliding_window_scores_the_same():
    torch.manual_seed(0)
    config = build("gemma3").config
    config.layer_types = config.layer_types[::-1]
    model = Gemma3ForCausalLM(config).eval()
    prefer_shared_prefix(model)
    groups = random_groups(3, 4, 20, 9)  # longer than the window of six
    plain = gradients(model, CausalScorer(path=ScoringPath.PLAIN)(model, groups).logprobs.sum())
    for name, value in gradients(model, CausalScorer(path=ScoringPath.SHARED)(model, groups).logprobs.sum()).items():
        torch.testing.assert_close(value, plain[name], atol=1e-5 * max(1.0, float(plain[name].abs().max())), rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_blocks_change_no_gradient_of_the_model(name, monkeypatch):
    model, groups = build(name), random_groups(*SHAPES["long tails"], seed=3)
    whole = gradients(model, CausalScorer()(model, groups).logprobs.sum())
    monkeypatch.setattr(causal_blocks, "_BLOCK", 4)
    for key, value in gradients(model, CausalScorer()(model, groups).logprobs.sum()).items():
        torch.testing.assert_close(value, whole[key], atol=1e-5 * max(1.0, float(value.abs().max())), rtol=1e-4)


def test_rows_without_a_common_token_are_scored_apart():
    model = build("llama")
    rows = [ScoredRow((3 + i, 4, 5, 6), 2) for i in range(3)]
    scored = CausalScorer(token_budget=2, path=ScoringPath.SHARED).score(model, [rows])
    plain = CausalScorer(path=ScoringPath.PLAIN).score(model, [rows])
    torch.testing.assert_close(scored.logprobs, plain.logprobs, atol=2e-5, rtol=0)
    assert common_prefix([row.ids for row in rows]) == 0


def test_log_softmax_with_entropies_has_the_right_gradient():
    torch.manual_seed(0)
    logits = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    where, target = torch.tensor([0, 0, 2, 3, 2]), torch.tensor([1, 5, 8, 0, 8])
    assert torch.autograd.gradcheck(lambda x: _Selected.apply(x, where, target, False)[0], logits)
    _, entropy = _Selected.apply(logits, where, target, True)
    torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy())
    assert not entropy.requires_grad


def test_logits_of_all_positions_never_exist_at_once(monkeypatch):
    monkeypatch.setattr(head, "_CACHED_LOGITS", 5 * 120)
    model, groups, sizes = build("llama"), random_groups(3, 4, 10, 8), []
    model.lm_head.register_forward_hook(lambda module, args, out: sizes.append(out.shape[0]))
    scored = CausalScorer().score(model, groups, constraint=EvenTokens())
    assert max(sizes) <= 5
    assert sum(sizes) < sum(tokens_of(group) for group in groups)  # positions of prompts cost no logits
    assert scored.logprobs.isfinite().any()


def test_turns_hold_every_length_in_order():
    assert list(in_turns([3, 4, 5, 1, 1, 9], 7)) == [[3, 4], [5, 1, 1], [9]]


def test_bfloat16_stays_near_float32():
    model, groups = build("qwen2"), random_groups(2, 4, 20, 9)
    exact = CausalScorer()(model, groups).logprobs
    model.bfloat16()
    scores = CausalScorer()(model, groups)
    scores.logprobs.sum().backward()
    assert float((scores.logprobs - exact).detach().abs().max()) < 0.1
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_attention_dropout_that_is_not_applied_is_said(caplog):
    build("gpt2")
    assert "attention dropout (0.1) is not applied" in caplog.text
    caplog.clear()
    build("llama")
    assert not caplog.text

"""Log-probabilities, gradients and rollouts of every family are the unpatched model's own, or the family is refused."""

import pytest
import torch

from swirl_lightning.rollout import RolloutRequest, TransformersEngine
from swirl_lightning.rollout.self_check import rollout_path
from swirl_lightning.scoring.scorer import CausalScorer, prefer_shared_prefix
from swirl_lightning.scoring.self_check import UnsupportedModelError, scoring_path
from swirl_lightning.types import SamplingParams
from tests.architectures.families import FAMILIES, REFUSED, VOCAB, tiny
from tests.architectures.table import FILE, documented
from tests.architectures.table import row as row_of_table
from tests.models import random_groups

EXACT = 1e-4
NEW = 7
GROUPS = random_groups(2, 3, 12, 6)
ROWS = [row for group in GROUPS for row in group]
PROMPTS = [[(7 * i + n) % (VOCAB - 3) + 3 for i in range(n)] for n in (4, 11, 8)]
STOP = range(3, VOCAB, 5)


def own_logs(model, ids, start):
    """The model's own log-probabilities [tail, V] after ``start`` tokens, of one unpadded row."""
    return torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, start - 1 : -1].float(), dim=-1)


def of_tokens(logs, ids):
    return logs.gather(-1, torch.tensor(ids)[:, None])[:, 0]


def gradients(model, total):
    model.zero_grad()
    total.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in REFUSED])
def test_numbers_are_the_models_own(name):
    assert row_of_table(name) in FILE.read_text().splitlines()
    own, model = tiny(name, attention="eager"), tiny(name)
    prefer_shared_prefix(model)
    assert (scoring_path(model, gradients=True), rollout_path(model)) == documented()[name]
    wanted = [of_tokens(own_logs(own, row.ids, row.start), row.ids[row.start :]) for row in ROWS]
    of_own = gradients(own, sum(logs.exp().sum() for logs in wanted))
    found = CausalScorer()(model, GROUPS)
    torch.testing.assert_close(found.logprobs[found.mask], torch.cat(wanted), atol=EXACT, rtol=0)
    for key, gradient in gradients(model, (found.logprobs.exp() * found.mask).sum()).items():
        torch.testing.assert_close(gradient, of_own[key], atol=EXACT * max(1.0, float(of_own[key].abs().max())), rtol=0)
    scored = CausalScorer(token_budget=20).score(model, GROUPS)
    torch.testing.assert_close(scored.logprobs[scored.mask], torch.cat(wanted), atol=EXACT, rtol=0)
    for temperature in (0.0, 1.0):
        request = RolloutRequest(PROMPTS, (1, 2, 3), 3, SamplingParams(NEW, temperature), stop_ids=STOP, pad_id=2)
        drawn = TransformersEngine().generate(model, request)
        for i, prompt in enumerate(PROMPTS):
            for k in range(3 if temperature else 1):  # greedy members are all the same
                ids = drawn.completion_ids(i, k)
                with torch.no_grad():
                    logs = own_logs(own, [*prompt, *ids], len(prompt))
                torch.testing.assert_close(drawn.logprobs[i, k, : len(ids)], of_tokens(logs, ids), atol=EXACT, rtol=0)
                if not temperature:
                    assert torch.equal(drawn.completions[i, 0], drawn.completions[i, 2])
                    torch.testing.assert_close(of_tokens(logs, ids), logs.amax(-1), atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_with_no_way_that_agrees_is_refused(name):
    model = tiny(name)
    prefer_shared_prefix(model)
    with pytest.raises(
        UnsupportedModelError, match=r"no way of (scoring|rollouts) agrees with .* nothing is trained: .*: .*; .*: "
    ) as error:
        (scoring_path(model, gradients=True), rollout_path(model))
    assert f"model_type '{name}'" in str(error.value)
    assert name not in documented()
    assert row_of_table(name) in FILE.read_text().splitlines()

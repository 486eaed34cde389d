"""Numbers stay the model's own where an architecture computes otherwise beyond a length that no small input reaches."""

import pytest
import torch

from swirl_lightning.rollout import RolloutRequest, TransformersEngine
from swirl_lightning.rollout.decoders import RolloutPath
from swirl_lightning.rollout.self_check import rollout_path
from swirl_lightning.scoring.positions import positions_of
from swirl_lightning.scoring.scorer import CausalScorer, prefer_shared_prefix
from swirl_lightning.scoring.self_check import ScoringPath, quietly, reach, scoring_path
from swirl_lightning.types import SamplingParams
from tests.architectures.families import tiny
from tests.architectures.test_numbers import EXACT, of_tokens, own_logs
from tests.models import random_groups

LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}


def assert_rollouts_are(own, model, prompts):
    """What a model draws has the log-probabilities that ``own`` gives it, row by row."""
    drawn = TransformersEngine().generate(model, RolloutRequest(prompts, (1, 2), 2, SamplingParams(9, 1.0), (119,), 2))
    for i, prompt in enumerate(prompts):
        for k in range(2):
            ids = drawn.completion_ids(i, k)
            with torch.no_grad():
                logs = own_logs(own, [*prompt, *ids], len(prompt))
            torch.testing.assert_close(drawn.logprobs[i, k, : len(ids)], of_tokens(logs, ids), atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", ["deepseek_v32", "glm_moe_dsa", "axk2"])
def test_sparse_attention_beyond_the_keys_that_it_keeps(name):
    own, model = tiny(name, attention="eager", index_topk=30), tiny(name, index_topk=30)
    prefer_shared_prefix(model)
    assert scoring_path(model) is ScoringPath.PLAIN
    groups = random_groups(2, 3, 60, 6)
    rows = [row for group in groups for row in group]
    found = CausalScorer().score(model, groups)
    with torch.no_grad():
        wanted = torch.cat([of_tokens(own_logs(own, row.ids, row.start), row.ids[row.start :]) for row in rows])
    torch.testing.assert_close(found.logprobs[found.mask], wanted, atol=EXACT, rtol=0)


def test_compressed_keys_begin_to_count_after_a_block_of_them():
    own, model = (
        tiny("deepseek_v4", attention=attention, max_position_embeddings=256, index_topk=5) for attention in ("eager", None)
    )
    prefer_shared_prefix(model)
    assert reach(model) == 128
    assert rollout_path(model) is RolloutPath.EQUAL_LENGTHS
    prompts = [list(range(3, 119)) + list(range(5, 5 + n)) for n in (9, 30)]
    assert_rollouts_are(own, model, prompts)


@pytest.mark.parametrize(
    ("name", "changes", "positions"),
    [
        ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 64}, 64),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}, 128),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}, 128),
        ("gpt2", {}, 128),
        ("mamba", {}, None),
    ],
)
def test_rows_end_where_positions_do_or_begin_to_turn_otherwise(name, changes, positions):
    model = tiny(name, **changes)
    prefer_shared_prefix(model)
    assert positions_of(model) == positions
    if positions is None:
        return
    fits, beyond = ([[3] * (positions - room)] for room in (2, 1))
    TransformersEngine().generate(model, RolloutRequest(fits, (1,), 2, SamplingParams(2, 1.0), (1,), 2))
    with pytest.raises(ValueError, match=f"the model has {positions} positions"):
        TransformersEngine().generate(model, RolloutRequest(beyond, (1,), 2, SamplingParams(2, 1.0), (1,), 2))


def test_queries_that_are_scaled_by_their_place_from_thousands_of_tokens_on():
    scaled = {"floor_scale": 30, "attn_scale": 0.5, "attn_temperature_tuning": True, "no_rope_layers": [0, 0]}
    own, model = tiny("llama4_text", attention="eager", **scaled), tiny("llama4_text", **scaled)
    prefer_shared_prefix(model)
    assert rollout_path(model) is RolloutPath.EQUAL_LENGTHS  # its places count padding
    prompts = [list(range(3, 50)), list(range(3, 30))]
    assert_rollouts_are(own, model, prompts)


def test_a_check_looks_beyond_chunks_and_blocks_but_narrows_windows():
    with quietly(model := tiny("llama4_text", attention_chunk_size=100, layer_types=["chunked_attention", "full_attention"])):
        assert reach(model) == 0
    assert reach(tiny("mamba2", num_heads=4, head_dim=16, chunk_size=33, n_groups=2)) == 33
    assert reach(tiny("llama")) == 0

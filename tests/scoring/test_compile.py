"""Norms and MLPs compiled, and on a GPU a decoding step's attention: the same numbers."""

import shutil

import pytest
import torch

from swirl_lightning.rollout.decode import DecodeLayout, attention_of_one
from swirl_lightning.scoring.explicit import KeyScores
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.types import Role
from swirl_lightning.world_model import WorldModel, WorldModelConfig
from swirl_lightning.world_model.loading import compile_between_attention
from tests.models import build, random_groups

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")


def compiled(model):
    return {name for name, module in model.named_modules() if module._compiled_call_impl is not None}


@pytest.mark.slow
@needs_compiler
def test_scores_and_gradients_are_those_of_the_model_as_it_is():
    plain, fused = build("qwen2"), build("qwen2")
    compile_between_attention(fused)
    names = {f"model.layers.{i}.{part}" for i in (0, 1) for part in ("input_layernorm", "mlp", "post_attention_layernorm")}
    assert compiled(fused) == names
    for seed in (0, 1):  # other lengths
        groups = random_groups(2, 3, 14, 9, seed=seed)
        results = []
        for model in (plain, fused):
            model.zero_grad()
            scores = CausalScorer()(model, groups)
            scores.logprobs.sum().backward()
            results.append((scores.logprobs.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}))
        torch.testing.assert_close(results[0], results[1], atol=2e-5, rtol=1e-4)


@needs_compiler
@pytest.mark.parametrize("storage", ["separate", "shared", "adapters"])
def test_every_model_of_the_pair_is_compiled(tmp_path, storage):
    build("gpt2").save_pretrained(tmp_path)
    world_model = WorldModel(WorldModelConfig(base=str(tmp_path), storage=storage, compile=True))
    for model in world_model.models.values():
        assert len(compiled(model)) == 2 * 3
    with world_model.use(Role.IDM) as model:
        assert not any("attn" in name for name in compiled(model))


@pytest.mark.parametrize("scores", [KeyScores(), KeyScores(window=5, softcap=4.0, sinks=torch.randn(4))], ids=["plain", "all"])
def test_attention_of_a_step_is_one_graph_for_all_lengths(monkeypatch, scores):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    fused = torch.compile(attention_of_one, dynamic=True, fullgraph=True, backend=backend)
    monkeypatch.setattr("swirl_lightning.rollout.decode.compiled_attention", lambda: fused)
    module = torch.nn.Module()
    module.layer_idx = 0
    for b, g, p, capacity in ((2, 3, 7, 6), (4, 2, 9, 10)):
        torch.manual_seed(b)
        prefix = {0: (torch.randn(b, 2, p, 8), torch.randn(b, 2, p, 8))}
        lengths = torch.arange(p, p - b, -1)
        plain, other = (DecodeLayout(prefix, lengths, (p - b + 1, p), g, capacity, {}, compiled=on) for on in (False, True))
        for step in range(capacity):
            new = [torch.randn(b * g, heads, 1, 8) for heads in (4, 2, 2)]
            results = []
            for layout in (plain, other):
                layout.start(step)
                results.append(layout.attend(module, *new, scores))
            torch.testing.assert_close(*results)
    assert len(graphs) <= 2  # the first shape, then any shape


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FileNotFoundError, match="no-such-compiler is not on PATH"):
        compile_between_attention(build("llama"))

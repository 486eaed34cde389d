"""Rollouts on a vLLM server: adapters arrive, draws come back, and their probabilities are corrected."""

import copy

import pytest
import torch

from swirl_lightning.cli import main
from swirl_lightning.codecs.constraints import ChoiceConstraint, RangeConstraint
from swirl_lightning.rollout import RolloutRequest, TransformersEngine, VllmEngine
from swirl_lightning.types import Role, SamplingParams
from swirl_lightning.world_model import WorldModel, WorldModelConfig
from swirl_lightning.world_model.loading import load_causal_lm
from tests.distributed.harness import seen, settings
from tests.end_to_end.conftest import world
from tests.models import VOCAB, build
from tests.rollout.vllm_server import serve
from tests.world_model.test_storage_modes import Words

__all__ = ["world"]
PROMPTS = [[5, 6, 7, 8], [9, 10, 11]]


@pytest.fixture
def pair(tmp_path):
    build("llama", shared=False).save_pretrained(str(tmp_path / "base"))
    pair = WorldModel(WorldModelConfig(base=str(tmp_path / "base"), storage="adapters", dtype="float32"))
    change(pair, Role.FWM)
    change(pair, Role.IDM)
    return pair


@pytest.fixture
def server(pair):
    with serve(build("llama", shared=False)) as server:
        yield server


def change(pair, role, by=0.3):
    with torch.no_grad():
        for parameter in pair.role_parameters(role):
            parameter.add_(by * torch.randn_like(parameter))


def request(params, **more):
    return RolloutRequest(PROMPTS, [3, 4], 3, params, stop_ids=[1], pad_id=2, **more)


def draw(engine, pair, role, params, **more):
    with pair.use(role) as model:
        return engine.generate(model, request(params, **more))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("allowed", [None, RangeConstraint(VOCAB, 20, 60, (1,))])
def test_draws_of_every_role_are_those_of_the_model_itself(pair, server, temperature, allowed):
    engine, params = VllmEngine(server.url), SamplingParams(6, temperature)
    for role in (Role.FWM, Role.IDM, Role.FWM):
        mine = draw(TransformersEngine(), pair, role, params, constraint=allowed)
        theirs = draw(engine, pair, role, params, constraint=allowed)
        assert torch.equal(theirs.completions, mine.completions)
        assert torch.equal(theirs.mask, mine.mask)
        assert torch.equal(theirs.finished, mine.finished)
        assert torch.allclose(theirs.logprobs, mine.logprobs, atol=1e-5)


def test_an_adapter_is_pushed_when_it_has_changed_and_the_stale_one_goes(pair, server, tmp_path):
    engine, params = VllmEngine(server.url, folder=str(tmp_path / "pushed")), SamplingParams(2)
    draw(engine, pair, Role.FWM, params)
    draw(engine, pair, Role.IDM, params)
    draw(engine, pair, Role.FWM, params)
    assert [name.partition("-")[0] for name in server.loaded] == ["fwm", "idm"]
    assert server.seen == [["adapter_config.json", "adapter_model.safetensors"]] * 2
    stale = server.loaded[0]
    change(pair, Role.FWM)
    draw(engine, pair, Role.FWM, params)
    assert [name.partition("-")[0] for name in server.loaded] == ["idm", "fwm"]
    assert stale not in server.loaded
    kept = [folder.name for folder in tmp_path.joinpath("pushed").iterdir()]
    assert sorted(kept) == sorted(server.loaded)  # vLLM drops idle adapters and reads them again when they are asked for


def test_an_optimizer_that_leaves_no_trace_is_noticed(pair, server):
    engine, params = VllmEngine(server.url), SamplingParams(6)
    optimizer = torch.optim.AdamW(pair.role_parameters(Role.FWM), lr=0.1, fused=True)
    for _ in range(2):
        mine = draw(TransformersEngine(), pair, Role.FWM, params)
        theirs = draw(engine, pair, Role.FWM, params)
        assert torch.allclose(theirs.logprobs, mine.logprobs, atol=1e-5)
        for parameter in pair.role_parameters(Role.FWM):
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def test_what_the_engine_cannot_do_is_said(pair, server):
    engine, params = VllmEngine(server.url), SamplingParams(2)
    with pytest.raises(ValueError, match="not to a list of choices or a grammar"):
        draw(engine, pair, Role.IDM, params, constraint=ChoiceConstraint(["a"], Words()))
    with pytest.raises(ValueError, match=r"set model\.world_model\.storage to adapters"):
        engine.generate(build("llama"), request(params))
    with pytest.raises(ConnectionError, match=r"no vLLM server answers at http://127.0.0.1:9 .*vllm serve BASE --enable-lora"):
        draw(VllmEngine("http://127.0.0.1:9"), pair, Role.IDM, params)
    draw(engine, pair, Role.IDM, params)
    server.loaded.clear()  # it was started anew
    with pytest.raises(ConnectionError, match=r"/v1/completions refused \(404\): .*no such model"):
        draw(engine, pair, Role.IDM, params)
    with pytest.raises(ValueError, match=r"at least 1, got 0\.5"):
        VllmEngine(importance_cap=0.5)


class TestTraining:
    """A whole run on the server against the same run without it."""

    @pytest.fixture
    def base(self, world):
        return load_causal_lm(str(world / "model"), dtype="float32", trust_remote_code=False, seed=0)

    def arguments(self, world, folder, url, **changes):
        engine = {"class_path": "swirl_lightning.rollout.VllmEngine", "init_args": {"url": url, "importance_cap": 1.05}}
        changes |= {"model__engine": engine} if url else {}
        return settings(world, folder, storage="adapters", **changes)

    def test_steps_are_those_without_it(self, world, base, tmp_path):
        assert main(self.arguments(world, tmp_path / "alone", None)) == 0
        with serve(copy.deepcopy(base)) as server:
            assert main(self.arguments(world, tmp_path / "served", server.url)) == 0
        alone, served = (seen(tmp_path / name)["steps"] for name in ("alone", "served"))
        for mine, theirs in zip(alone, served, strict=True):
            for name in mine:
                assert theirs[name] == pytest.approx(mine[name], rel=1e-4, abs=1e-5), name
        assert all(abs(step["fwm/importance"] - 1) < 1e-4 for step in served if "fwm/importance" in step)

    def test_a_difference_becomes_a_capped_weight_of_the_gradient(self, world, base, tmp_path):
        norms = {}
        changes = {
            "model__fwm__grpo": {"beta": 0.0},
            "model__schedule": {"warmup_epochs": 1, "iterations": 1, "order": ["fwm"]},
        }
        for error in (0.0, 0.1, -0.4):  # of the server's log-probabilities
            with serve(copy.deepcopy(base)) as server:
                server.logprob_error = error
                assert main(self.arguments(world, tmp_path / str(error), server.url, **changes)) == 0
            norms[error] = next(s for s in seen(tmp_path / str(error))["steps"] if "fwm/grad_norm" in s)
        exact = norms[0.0]
        assert norms[0.1]["fwm/importance"] == pytest.approx(0.904837, rel=1e-3)
        assert norms[0.1]["fwm/engine_mismatch"] == pytest.approx(0.1, rel=1e-3)
        assert norms[0.1]["fwm/grad_norm"] == pytest.approx(0.904837 * exact["fwm/grad_norm"], rel=1e-3)
        assert norms[-0.4]["fwm/importance"] == pytest.approx(1.05)

    def test_the_next_batch_is_drawn_meanwhile_and_corrected(self, world, base, tmp_path):
        for name, lr in (("still", 0.0), ("moving", 300.0)):
            optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": lr}}
            changes = {"model__fwm_optimizer": optimizer, "model__idm_optimizer": optimizer}
            if name == "still":
                assert main(self.arguments(world, tmp_path / "alone", None, **changes)) == 0
            with serve(copy.deepcopy(base)) as server:
                arguments = self.arguments(world, tmp_path / name, server.url, **changes)
                assert main([*arguments, "--model.engine.init_args.ahead", "true"]) == 0
                assert len(server.loaded) == 2  # what was replaced is gone
        alone, ahead = (seen(tmp_path / name)["steps"] for name in ("alone", "still"))
        for mine, theirs in zip(alone, ahead, strict=True):
            for name in mine:
                assert theirs[name] == pytest.approx(mine[name], rel=1e-4, abs=1e-5), name
        off = [s["fwm/engine_mismatch"] for s in seen(tmp_path / "moving")["steps"] if "fwm/engine_mismatch" in s]
        assert off[0] < 1e-6  # the first batch of an epoch is drawn when it is needed
        assert min(off[1:]) > 1e-5

    def test_another_base_model_is_noticed(self, world, base, tmp_path, capfd):
        with serve(copy.deepcopy(base)) as server:
            server.logprob_error = 1.0
            assert main(self.arguments(world, tmp_path / "other", server.url)) == 1
        assert "it runs another base model than" in capfd.readouterr().err

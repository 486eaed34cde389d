"""A second process draws the next batch: what it draws is what the model would have drawn when it began."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from swirl_lightning.rollout import ProcessEngine, RolloutRequest, TransformersEngine
from swirl_lightning.types import Role, SamplingParams
from swirl_lightning.world_model import WorldModel, WorldModelConfig
from swirl_lightning.world_model.loading import compile_between_attention
from tests.models import build

PROMPTS = [[5, 6, 7, 8], [9, 10, 11]]


def request(*seeds, temperature=0.8):
    return RolloutRequest(PROMPTS, seeds or (3, 4), 3, SamplingParams(6, temperature), stop_ids=[1], pad_id=2)


@pytest.fixture(scope="module")
def engine():
    return ProcessEngine()


@pytest.fixture(params=["separate", "adapters"])
def world_model(request, tmp_path):
    build("llama", shared=False).save_pretrained(str(tmp_path / "base"))
    pair = WorldModel(WorldModelConfig(base=str(tmp_path / "base"), storage=request.param, dtype="float32"))
    for role in Role:
        change(pair, role)
    return pair


def change(pair, role):
    with torch.no_grad():
        for parameter in pair.role_parameters(role):
            parameter.add_(0.3 * torch.randn_like(parameter))


def own(pair, role, asked):
    with pair.use(role) as model:
        return TransformersEngine().generate(model, asked)


def equal(mine, theirs):
    return torch.equal(mine.completions, theirs.completions) and torch.allclose(mine.logprobs, theirs.logprobs, atol=1e-5)


def test_it_draws_with_the_weights_of_when_it_began(engine, world_model):
    for role in (Role.FWM, Role.IDM, Role.FWM):
        for seeds in ((3, 4), (5, 6)):
            before = own(world_model, role, request(*seeds))
            with world_model.use(role) as model:
                engine.begin(model, request(*seeds))
            change(world_model, role)
            with world_model.use(role) as model:
                drawn = engine.generate(model, request(*seeds))
            assert equal(drawn, before)
            assert torch.equal(drawn.finished, before.finished)
            assert not drawn.current
            assert not equal(own(world_model, role, request(*seeds)), before)


@pytest.mark.parametrize("kind", [{"fused": True}, {"foreach": True}, {"foreach": False}])
def test_every_step_of_an_optimizer_is_taken_over(engine, world_model, kind):
    optimizer = torch.optim.AdamW(world_model.role_parameters(Role.FWM), lr=0.1, **kind)
    seen = []
    for _ in range(3):
        before = own(world_model, Role.FWM, request())
        with world_model.use(Role.FWM) as model:
            engine.begin(model, request())
            assert equal(engine.generate(model, request()), before)
        seen.append(before)
        for parameter in world_model.role_parameters(Role.FWM):
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    assert not any(equal(a, b) for a, b in pairwise(seen))


def test_what_was_not_begun_is_drawn_by_the_model_itself_and_what_was_begun_stays(engine, world_model):
    with world_model.use(Role.FWM) as model:
        engine.begin(model, request(3, 4))
    for asked in (request(7, 8), request(3, 4, temperature=0.9)):
        with world_model.use(Role.FWM) as model:
            other = engine.generate(model, asked)
        assert other.current
        assert equal(other, own(world_model, Role.FWM, asked))
    with world_model.use(Role.IDM) as model:  # the same prompts and seeds, another policy
        assert engine.generate(model, request(3, 4)).current
    with world_model.use(Role.FWM) as model:
        assert not engine.generate(model, request(3, 4)).current
        assert engine.generate(model, request(3, 4)).current  # once


def test_bfloat16_is_drawn_as_it_is_computed(engine, tmp_path):
    build("llama", shared=False).save_pretrained(str(tmp_path / "base"))
    pair = WorldModel(WorldModelConfig(base=str(tmp_path / "base"), compute_dtype="bfloat16"))
    for _ in range(2):
        before = own(pair, Role.FWM, request())
        with pair.use(Role.FWM) as model:
            engine.begin(model, request())
        change(pair, Role.FWM)
        with pair.use(Role.FWM) as model:
            assert equal(engine.generate(model, request()), before)


def test_what_cannot_be_sent_is_refused_before_training():
    engine, model = ProcessEngine(), build("llama")
    engine.check(model)
    assert all(p.device.type == "cpu" for p in model.parameters())
    compile_between_attention(model)
    engine.check(model)  # the copy is not compiled
    model.lm_head.forward = lambda hidden: hidden
    with pytest.raises(ValueError, match=r"cannot be sent to a second process .*leave model\.engine out"):
        engine.check(model)
    with patch("swirl_lightning.rollout.process.is_sharded", return_value=True), pytest.raises(ValueError, match="not fsdp"):
        engine.check(model)
    with pytest.raises(ValueError, match=r"engine\.threads must be at least 1, got 0"):
        ProcessEngine(threads=0)


def test_a_second_process_that_has_died_is_said():
    engine, model = ProcessEngine(), build("llama")
    engine.begin(model, request())
    engine.generate(model, request())
    for child in engine._process._processes:
        os.kill(child, signal.SIGKILL)

    def go_on():  # until the pool has noticed
        for seed in range(100):
            engine.begin(model, request(seed, seed))
            engine.generate(model, request(seed, seed))

    with pytest.raises(ValueError, match="the second process, which draws rollouts, has ended"):
        go_on()
    with pytest.raises(ValueError, match="has ended"):
        engine.begin(model, request())
    engine.close()
    engine.begin(model, request())
    assert not engine.generate(model, request()).current  # a new one


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_started_it(sent):
    code = (
        "import time\n"
        "from tests.rollout.test_process import ProcessEngine, build, request\n"
        "if __name__ == '__main__':\n"
        "    engine, model = ProcessEngine(), build('llama')\n"
        "    engine.begin(model, request())\n"
        "    engine.generate(model, request())\n"
        "    print(*engine._process._processes, flush=True)\n"
        "    time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=os.getcwd())
    child = int(parent.stdout.readline())
    parent.send_signal(sent)
    parent.wait()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the second process is still there")

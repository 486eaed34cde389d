"""The sampler asks a device for nothing, from one look at what has ended to the next; scoring asks a few times a pass."""

import pytest
import torch

from swirl_lightning.codecs.constraints import RangeConstraint
from swirl_lightning.codecs.image import ImageConstraint
from swirl_lightning.rollout import RolloutRequest, drawing
from swirl_lightning.rollout.decoders import RolloutPath, SharedDecoder
from swirl_lightning.scoring.passes import ScoringPath, score_pass
from swirl_lightning.types import SamplingParams
from tests.models import VOCAB, build, random_groups
from tests.rollout.waits import Waits

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [9, 10, 11]]  # unequal, and beyond gemma3's window
IMAGE = ImageConstraint(VOCAB, 3, range(40, 100), 4, 1, 20)


def request(params, constraint=None, stop=()):
    return RolloutRequest(PROMPTS, [3, 4], 3, params, stop_ids=stop, pad_id=2, constraint=constraint)


@pytest.fixture
def far_device(monkeypatch):
    """Lets the CPU be treated as a device that the host would have to wait for."""
    monkeypatch.setattr(drawing, "look_every", lambda device, constraint: 8)


def stamped(monkeypatch, waits):
    """Makes ``waits`` know how many tokens have been fed."""
    own = SharedDecoder.decode

    def decode(self, tokens, step):
        waits.stamp = step
        return own(self, tokens, step)

    monkeypatch.setattr(SharedDecoder, "decode", decode)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("params", [SamplingParams(25, 0.0), SamplingParams(25, 0.8, 20, 0.9, 0.01)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("constraint", [None, RangeConstraint(VOCAB, 20, 60, (1,)), IMAGE], ids=["free", "range", "image"])
def test_no_token_makes_the_host_wait(name, params, constraint, far_device, monkeypatch):
    model, waits = build(name), Waits()
    stamped(monkeypatch, waits)
    with waits:
        drawing.draw(model, request(params, constraint), RolloutPath.SHARED)
    during = [stamp for stamp, _ in waits.found if stamp is not None and stamp < 23]
    assert set(during) <= {6, 14, 22}  # after 8, 16 and 24 tokens the host looks; then fed are 7, 15 and 23
    assert len(during) < 60


def test_looking_rarely_changes_nothing(monkeypatch):
    model, stop = build("llama"), tuple(range(0, VOCAB, 7))  # members end all over
    params = SamplingParams(30, 1.0)
    often = drawing.draw(model, request(params, stop=stop), RolloutPath.SHARED)
    monkeypatch.setattr(drawing, "look_every", lambda device, constraint: 8)
    seldom = drawing.draw(model, request(params, stop=stop), RolloutPath.SHARED)
    assert len(set(often.lengths.flatten().tolist())) > 2
    assert torch.equal(often.completions, seldom.completions)
    assert torch.equal(often.mask, seldom.mask)
    assert torch.equal(often.finished, seldom.finished)
    assert torch.allclose(often.logprobs, seldom.logprobs, atol=1e-5)


@pytest.mark.parametrize("every", [1, 8])
def test_progress_counts_every_member_once(every, monkeypatch):
    monkeypatch.setattr(drawing, "look_every", lambda device, constraint: every)
    told = []
    ask = RolloutRequest(PROMPTS, [3, 4], 3, SamplingParams(20), stop_ids=range(0, VOCAB, 7), pad_id=2, progress=told.append)
    drawing.draw(build("llama"), ask, RolloutPath.SHARED)
    assert sum(told) == 6
    assert min(told) > 0


def test_where_a_constraint_follows_every_token_the_host_looks_at_each():
    device = torch.device("cuda")
    assert drawing.look_every(device, None) == drawing.look_every(device, IMAGE) > 1
    follows = type("Follows", (RangeConstraint,), {"static": False})(VOCAB, 20, 60)
    assert drawing.look_every(device, follows) == drawing.look_every(torch.device("cpu"), None) == 1


def test_scoring_waits_a_few_times_a_pass_however_many_positions_are_constrained():
    follows = type("Follows", (RangeConstraint,), {"static": False})(VOCAB, 0, VOCAB)
    counts = []
    for tail in (4, 40):
        model, waits = build("llama"), Waits()
        groups = random_groups(2, 4, 12, tail)
        with torch.no_grad(), waits:
            score_pass(model, groups, ScoringPath.SHARED, constraint=follows)
        counts.append(len(waits.found))
    assert counts[0] == counts[1] < 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_finds_no_waiting_either(monkeypatch):
    model = build("llama").cuda()
    own = SharedDecoder.decode

    def decode(self, tokens, step):
        torch.cuda.set_sync_debug_mode("error" if step % 8 < 6 else "default")
        return own(self, tokens, step)

    monkeypatch.setattr(SharedDecoder, "decode", decode)
    try:
        drawing.draw(model, request(SamplingParams(25, 0.8)), RolloutPath.SHARED)
    finally:
        torch.cuda.set_sync_debug_mode("default")

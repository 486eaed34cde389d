"""The supervised loss that a run sends backward: warm-up of one role or two, replay, a rank without a share."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from swirl_lightning.algorithm.steps import PhaseSteps
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.types import Role, ScoredRow, Transition
from tests.models import build

ROWS = {  # role: prompt and answer of each transition, of unequal lengths
    Role.FWM: [ScoredRow((3, 4, 5, 6, 7), 3), ScoredRow((3, 8, 9, 10, 11, 12), 2)],
    Role.IDM: [ScoredRow((3, 4, 13, 14), 3), ScoredRow((3, 8, 15, 16, 17), 2)],
}
TRANSITIONS = [Transition("x", "y", "z", step=i) for i in range(2)]


@pytest.fixture
def model():
    return build("llama")


@pytest.fixture
def steps(model):
    @contextmanager
    def use(role, training):
        model.train(training)
        yield model

    prompts = SimpleNamespace(
        wording_of=lambda transition, role, epoch: 0,
        fwm_row=lambda transition, *args: ROWS[Role.FWM][transition.step],
        idm_row=lambda transition, *args: ROWS[Role.IDM][transition.step],
    )
    inference = SimpleNamespace(prompts=prompts, scorer=CausalScorer(9), world_model=SimpleNamespace(use=use))

    def backward(loss):
        loss.backward()

    return PhaseSteps(inference, {}, backward=backward, optimise=lambda last: None, nonfinite=lambda what, value: None)


def expected(model, tasks):
    """``sum of weights times the mean over a task's answer tokens``, by the model's own logits."""
    loss = torch.zeros(())
    for task, weight in tasks.items():
        parts = []
        for row in ROWS[task]:
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
            answer = torch.tensor(row.ids[row.start :])
            parts.append(torch.nn.functional.cross_entropy(logits, answer, reduction="none"))
        loss = loss + weight * torch.cat(parts).mean()
    return loss


@pytest.mark.parametrize("tasks", [{Role.FWM: 1.0}, {Role.FWM: 1.0, Role.IDM: 0.25}, {Role.IDM: 3.0}])
def test_loss_and_gradient_are_the_mean_over_each_tasks_answer_tokens(model, steps, tasks):
    loss = expected(model, tasks)
    loss.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    said = steps.supervised(Role.FWM, tasks, TRANSITIONS, "nll", 0)
    assert said["nll"] * sum(tasks.values()) == pytest.approx(float(loss.detach()), abs=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-5, rtol=1e-4)


def test_a_rank_without_a_share_of_the_replay_goes_on_with_zero_loss(model, steps):
    assert steps.supervised(Role.FWM, {Role.FWM: 0.5}, (), "replay_nll", 0) == {"replay_nll": 0.0}
    assert all(parameter.grad is None for parameter in model.parameters())

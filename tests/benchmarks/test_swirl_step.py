"""The sides of ``swirl_step.py`` are compared before they are timed."""

import importlib
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def swirl_step():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("swirl_step")
    sys.path.remove(folder)


def numbers(logprob, reward=-2.0, exact=True):
    return {"logprobs": [[-1.0, logprob]], "rewards": [reward], "exact": exact}


def test_sides_that_agree_may_be_timed(swirl_step):
    found = swirl_step.agreement({"ours": numbers(-3.0), "strong": numbers(-3.00001), "plain": numbers(-3.0, -2.00002)})
    assert found["strong"] == pytest.approx({"logprobs": 1e-5, "rewards": 0.0}, abs=1e-9)
    assert found["plain"]["rewards"] == pytest.approx(2e-5)


@pytest.mark.parametrize("other", [numbers(-3.001), numbers(-3.0, -2.001), numbers(float("nan"))])
def test_sides_that_compute_something_else_may_not(swirl_step, other):
    with pytest.raises(RuntimeError, match="strong and ours differ"):
        swirl_step.agreement({"ours": numbers(-3.0), "strong": other})


def test_bfloat16_is_told_and_not_refused(swirl_step):
    found = swirl_step.agreement({"ours": numbers(-3.0, exact=False), "plain": numbers(-3.01, exact=False)})
    assert found["plain"]["logprobs"] == pytest.approx(0.01)

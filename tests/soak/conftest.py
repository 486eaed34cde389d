"""The recorded world and the configuration of the end-to-end tests, and how often to kill."""

import pytest

from tests.end_to_end.conftest import config, world

__all__ = ["config", "world"]


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="kills of the soak (make soak: 50)")
    parser.addoption("--soak-seed", type=int, default=0, help="draws the moments and the signals")


@pytest.fixture
def kills(request):
    return request.config.getoption("--kills", 3)  # not known where pytest is not given this folder


@pytest.fixture
def soak_seed(request):
    return request.config.getoption("--soak-seed", 0)

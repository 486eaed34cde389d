"""What holds for every test."""

import os

import pytest


@pytest.fixture(autouse=True)
def _environment_as_it_was():
    """Lightning leaves LOCAL_RANK and more behind, with which the next ``swirl`` would wait for ranks that nobody starts."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        if name != "PYTEST_CURRENT_TEST":
            del os.environ[name]
    os.environ.update(before)

"""What holds for every test."""

import os
import sys

import pytest

# Two workers and what they start share the cores: threads that spin while they wait for one another take five times the
# processor time. Said before torch is imported, for workers and their children; the number of threads is the machine's own.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
assert "torch" not in sys.modules, "too late to say how threads wait"

OF_LAUNCHERS = {"LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys()


@pytest.fixture(autouse=True)
def _environment_as_it_was():
    """Lightning leaves LOCAL_RANK and more behind, with which the next ``swirl`` would wait for ranks that nobody starts."""
    for name in OF_LAUNCHERS & os.environ.keys():  # of a fixture of the whole file, which ran before this one
        del os.environ[name]
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        if name != "PYTEST_CURRENT_TEST":
            del os.environ[name]
    os.environ.update(before)

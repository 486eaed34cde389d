"""The recorded world and the configuration writer of the end-to-end tests, and what a user sees of a failure."""

import lightning.pytorch  # noqa: F401 - now: its log handler keeps the stderr of the moment, which under capfd is closed after the test
import pytest

from swirl_lightning.cli import main
from tests.end_to_end.conftest import config, world

__all__ = ["config", "world"]


@pytest.fixture
def complaint(capfd):
    """A function that runs ``swirl`` with arguments that must fail, and gives what it prints as its error."""

    def run(arguments):
        capfd.readouterr()
        try:
            status = main(arguments)
        except SystemExit as stop:  # jsonargparse
            status = stop.code
        shown = capfd.readouterr().err
        assert status not in (0, None), shown
        assert "Traceback" not in shown
        assert "rror: " in shown
        return shown[shown.rindex("rror: ") + 6 :]

    return run

"""The recorded world and the configuration writer of the end-to-end tests."""

from tests.end_to_end.conftest import config, world

__all__ = ["config", "world"]

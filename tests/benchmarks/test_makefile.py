"""The benchmarks' commands in the Makefile give options that their scripts have."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"(benchmarks/\w+\.py)((?:[^\n]|(?<=\\\\)\n)*)", (ROOT / "Makefile").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("script", "words"), COMMANDS, ids=lambda value: value.strip()[:40])
def test_options_are_known(script, words):
    known = set(re.findall(r'"(--[a-z-]+)"', (ROOT / script).read_text(encoding="utf-8")))
    given = set(re.findall(r"--[a-z-]+", words))
    assert given
    assert given <= known


def test_there_are_commands():
    assert len(COMMANDS) >= 6

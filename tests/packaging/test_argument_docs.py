"""What a user configures is described in whole sentences: `swirl fit --help` and the reference show them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (
    "callbacks/*.py",
    *(
        f"src/swirl_lightning/{place}"
        for place in (
            "algorithm/*.py",
            "algorithm/objectives/*.py",
            "algorithm/rewards/*.py",
            "codec_training/*.py",
            "codecs/chat.py",
            "codecs/constraints.py",
            "commands/*.py",
            "data/datamodule.py",
            "data/video.py",
            "environments/**/*.py",
            "evaluation/judge.py",
            "metrics/*.py",
            "rollout/sampler.py",
            "rollout/vllm.py",
            "types.py",
            "world_model/*.py",
        )
    ),
)
_SECTION = re.compile(r"^(?:Args|Attributes):\n((?:(?: {4}.*)?\n?)*)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?: (.*(?:\n(?: {5,}.*)?)*)", re.MULTILINE)


def descriptions(file):
    """Name and description of every argument and attribute of a file's classes."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            for section in _SECTION.findall((ast.get_docstring(node) or "") + "\n"):
                for name, text in _ENTRY.findall(section):
                    yield f"{node.name}.{name}", text.strip()


@pytest.mark.parametrize("place", PLACES)
def test_arguments_are_described_in_sentences(place):
    files = sorted(ROOT.glob(place))
    assert files
    found = [(file.name, *pair) for file in files for pair in descriptions(file)]
    wrong = [one for one in found if one[2][:1].islower() or not re.search(r"[.!?:][`)\"']*$", one[2])]
    assert not wrong, wrong[:5]

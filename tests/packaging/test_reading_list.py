"""README's "Read this in an hour": the files are there, and as long as it says."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 3000  # lines in an hour


def test_an_hours_reading_exists_and_is_no_longer_than_it_says():
    section = (ROOT / "README.md").read_text().split("## Read this in an hour")[1].split("\n## ")[0]
    listed = {name: int(lines) for name, lines in re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \| (\d+) \|", section, re.M)}
    lines = {name: len((ROOT / name).read_text().splitlines()) for name in listed}
    assert len(listed) >= 8
    assert sum(lines.values()) <= MOST
    stale = {name: count for name, count in lines.items() if abs(count - listed[name]) > max(10, count // 10)}
    assert not stale, "README states other lengths"


def test_a_grpo_step_is_four_files_of_900_lines():
    algorithm = ROOT / "src/swirl_lightning/algorithm"
    step = [algorithm / name for name in ("experience.py", "rollouts.py", "steps.py", "objectives/grpo.py")]
    assert sum(len(file.read_text().splitlines()) for file in step) <= 900

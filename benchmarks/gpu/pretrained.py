"""The study with a pretrained model on a real world, five seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu.common import ROOT, SkippedError, command

STUDY = ROOT / "configs" / "study" / "real-model.yaml"


def measure(place: Path, tiny: bool) -> dict[str, Any]:
    """The study's report.

    Raises:
        SkippedError: if the study or the folder of its model is not there.
    """
    if not STUDY.is_file():
        raise SkippedError(f"there is no {STUDY.relative_to(ROOT)}")
    study = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    base = yaml.safe_load((ROOT / study["base"]).read_text(encoding="utf-8"))["model"]["world_model"]["base"]
    if not (ROOT / base).is_dir():
        raise SkippedError(f"the model folder {base} is not there: `make real-model` makes it")
    if tiny:
        raise SkippedError("it has no tiny form")
    out = ["--out", str(place), "--seeds", "[0, 1, 2, 3, 4]", "--page", "null"]
    command([sys.executable, "-m", "swirl_lightning", "study", "--config", str(STUDY), *out], minutes=8)
    (report,) = place.glob("*.md")
    return {"report": report.read_text(encoding="utf-8")}


def table(result: dict[str, Any]) -> str:
    """The study's report as it is."""
    return str(result["report"])

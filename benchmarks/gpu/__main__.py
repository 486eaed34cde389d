"""Everything that only a GPU can show, in under 25 minutes on one H100: ``make gpu`` writes ``docs/gpu.md``.

    python -m benchmarks.gpu                    # parts that have a result are kept: the same command goes on
    python -m benchmarks.gpu --only steps       # one part
    python -m benchmarks.gpu --tiny --out DIR   # the smallest sizes on any device, in seconds

Every part is a file here, runs in a process of its own and leaves ``PART.json`` in the output folder. One that fails or
takes too long does not stop the others; it is tried again next time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.gpu.common import ROOT, SkippedError, device_name
from swirl_lightning.files import put_text

PARTS = {"sweep": 3, "steps": 10, "strategies": 4, "memory": 2, "pretrained": 4, "vllm": 2}  # and the minutes they may take


def run_part(name: str, out: Path, tiny: bool) -> None:
    """Measures one part here and writes its result."""
    part = importlib.import_module(f"benchmarks.gpu.{name}")
    place = out / name
    place.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"part": name, "device": device_name()}
    try:
        result["result"] = part.measure(place, tiny)
    except SkippedError as error:
        result["skipped"] = str(error)
    put_text(out / f"{name}.json", json.dumps(result, indent=2) + "\n")


def run_apart(name: str, out: Path, minutes: float) -> None:
    """Measures one part in a process of its own; what goes wrong is written down."""
    arguments = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--out", str(out)]
    problem = ""
    try:
        with (out / f"{name}.log").open("w", encoding="utf-8") as log:
            done = subprocess.run(arguments, cwd=ROOT, stdout=log, stderr=log, timeout=60 * minutes, check=False)
        if done.returncode:
            problem = (out / f"{name}.log").read_text(encoding="utf-8").strip().splitlines()[-1]
    except subprocess.TimeoutExpired:
        problem = f"stopped after {minutes} minutes"
    if problem:
        failed = {"part": name, "device": device_name(), "failed": problem}
        put_text(out / f"{name}.json", json.dumps(failed, indent=2) + "\n")


def finished(file: Path) -> bool:
    """Whether a part has a result already."""
    return file.is_file() and "result" in json.loads(file.read_text(encoding="utf-8"))


def report(out: Path) -> str:
    """All parts as one page."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    lines = [
        f"# On {device_name()}",
        "",
        f"Written by `make gpu` on {datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip() or 'unknown'}; {versions}.",
    ]
    for name in PARTS:
        part = importlib.import_module(f"benchmarks.gpu.{name}")
        file = out / f"{name}.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"skipped": "not run"}
        lines += ["", f"## {str(part.__doc__).strip()}", ""]
        if "result" in found:
            lines.append(part.table(found["result"]))
        else:
            lines.append(f"Skipped: {found['skipped']}." if "skipped" in found else f"**Failed**: {found['failed']}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what has no result yet, then writes the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", help="folder of the results")
    parser.add_argument("--page", type=Path, help="default: docs/gpu.md, with --tiny gpu.md beside the results")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, on any device, all in this process")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.part:
        run_part(args.part, args.out, tiny=False)
        return 0
    if not args.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny runs the smallest sizes on any device")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        if finished(args.out / f"{name}.json"):
            print(f"{name}: kept", flush=True)
            continue
        print(f"{name} ...", flush=True)
        if args.tiny:
            run_part(name, args.out, tiny=True)
        else:
            run_apart(name, args.out, PARTS[name])
    page = args.page or (args.out / "gpu.md" if args.tiny else ROOT / "docs" / "gpu.md")
    put_text(page, report(args.out))
    print(page)
    results = [json.loads((args.out / f"{name}.json").read_text(encoding="utf-8")) for name in args.only]
    return int(any("failed" in result for result in results))


if __name__ == "__main__":
    sys.exit(main())

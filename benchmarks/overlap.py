"""Steps with the next batch's rollout drawn by a second process against steps that draw their own, one thread a process.

    python benchmarks/overlap.py --json out.json

Both sides run in processes of their own, one after the other by turns. What a second core can give at most is measured
beside it: the rate of large products of one process alone, and of two at once. From the parts of a step follows what two
cores of their own would give, if the two did not slow each other down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _shapes

SHAPES = ("phase1-image", "phase1-text", "phase2-text")
ENGINES = ("TransformersEngine", "ProcessEngine")
WARM = 2  # steps that are left out: the second process starts in the first


def worker(args: argparse.Namespace) -> None:
    """One side: a fit, its steps written out."""
    import torch
    from _model import write
    from _ours import Paced, fit

    import swirl_lightning

    torch.set_num_threads(1)
    shape, size, steps = _shapes.SHAPES[args.shape], _shapes.SIZES[args.size], list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), size)
        engine = getattr(swirl_lightning, args.worker)()
        paced = Paced(size, wait=lambda: None, tell=steps.append, clocked=False)
        fit(shape, size, Path(folder), args.steps + WARM + 1, paced, 16384, engine=engine)
    _shapes.reply(steps[1 + WARM : -1])  # the probes come first; the last step has nobody to draw for


def products(at_once: int, size: str) -> float:
    """FLOP a second of large products, of all of ``at_once`` processes together."""
    code = f"import _shapes, _model; print(_model.matmul_rate(200, _shapes.SIZES[{size!r}]))"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    here = Path(__file__).parent
    ran = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=here) for _ in range(at_once)]
    return sum(float(process.communicate()[0]) for process in ran)


def main() -> None:
    """Measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=_shapes.SHAPES, help="one of them alone")
    parser.add_argument("--size", choices=_shapes.SIZES, default="small")
    parser.add_argument("--steps", type=int, default=4, help="measured in each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    shapes = [args.shape] if args.shape else list(SHAPES)
    machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "threads": 1, "commit": _shapes.commit()}
    result: dict[str, Any] = machine | {"shapes": {}}
    result["second_core"] = products(2, args.size) / products(1, args.size)
    print(f"large products by two processes at once: {result['second_core']:.2f} times those of one")
    print("| shape | own rollouts, s | a second process draws, s | time | rollout of the former, s | two cores would give |")
    print("|---|---|---|---|---|---|")
    for shape in shapes:
        result["shapes"][shape] = row = compare(args, shape)
        own, ahead = row["TransformersEngine"], row["ProcessEngine"]
        cells = [f"{x['seconds']:.2f} ({x['least']:.2f} to {x['most']:.2f})" for x in (own, ahead)]
        numbers = (f"**{row['ratio']:.2f}x**", f"{own['rollout']:.2f}", f"{row['two_cores']:.2f}x")
        print("| " + " | ".join([shape, *cells, *numbers]) + " |", flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def compare(args: argparse.Namespace, shape: str) -> dict[str, Any]:
    """Both sides by turns."""
    steps: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    for _ in range(args.turns):
        for engine, made in steps.items():
            command = [sys.executable, __file__, "--shape", shape, "--size", args.size, "--steps", str(args.steps)]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
            run = subprocess.run([*command, "--worker", engine], capture_output=True, text=True, env=environment, check=False)
            lines = [line for line in run.stdout.splitlines() if line.startswith(_shapes.REPLY)]
            if run.returncode or not lines:
                raise RuntimeError(f"{engine} has failed:\n{run.stderr[-2000:]}")
            made += json.loads(lines[-1].removeprefix(_shapes.REPLY))
    row: dict[str, Any] = {}
    for engine, made in steps.items():
        seconds = [step["seconds"] for step in made]
        rollout = statistics.median(step["parts"]["rollout"] for step in made)
        row[engine] = {"seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds), "rollout": rollout}
        row[engine]["steps"] = len(made)
    own, ahead = row["TransformersEngine"], row["ProcessEngine"]
    row["ratio"] = own["seconds"] / ahead["seconds"]
    row["two_cores"] = own["seconds"] / max(own["rollout"], own["seconds"] - own["rollout"])
    return row


if __name__ == "__main__":
    main()

"""How the cost of a step grows: with the group, the prompt, the completion and the vocabulary; and of reading, with the pairs.

One quantity changes at a time. Each point is a step of ours (``_ours.py``) in a process of its own, the fewest processor
seconds of a few, against the FLOP that are counted for it; the exponent is the slope of a straight line through the logarithms
of the larger half of the points. Prints a table, writes JSON and a picture:

    python benchmarks/growth.py --json out.json --picture out.png
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import _shapes
import torch

PHASE2 = _shapes.Shape("idm", state=448, next_state=64, action=16, group=8, pairs=1)
PHASE1 = _shapes.Shape("fwm", state=240, next_state=64, action=16, group=8, pairs=1)
SIZE = replace(_shapes.SMALL, vocab=8192)


class Sweep(NamedTuple):
    """One quantity: the values it takes, and what a step is with each of them."""

    unit: str
    values: Sequence[int]
    case: Callable[[int], tuple[_shapes.Shape, _shapes.Size]]


SWEEPS = {
    "group": Sweep("members, Phase II", (4, 8, 16, 32, 64), lambda n: (replace(PHASE2, group=n), SIZE)),
    "prompt": Sweep(
        "tokens, Phase II", (256, 512, 1024, 2048, 4096, 8192, 16384), lambda n: (replace(PHASE2, state=n - 64), SIZE)
    ),
    "completion": Sweep("tokens, Phase I", (16, 32, 64, 128, 256, 512), lambda n: (replace(PHASE1, next_state=n), SIZE)),
    "vocabulary": Sweep("tokens, Phase I", (8192, 32768, 131072, 262144), lambda n: (PHASE1, replace(SIZE, vocab=n))),
}


def step(shape: _shapes.Shape, size: _shapes.Size, rounds: int, answer: Any) -> None:
    """Sends processor seconds of the fastest of ``rounds`` steps, the peak, and the rate of large products."""
    import _model
    import _ours

    torch.set_num_threads(1)
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        _model.write(Path(folder), size)
        paced = _ours.Paced(size, wait=lambda: None, tell=told.append)
        _ours.fit(shape, size, Path(folder), rounds + 1, paced, token_budget=1 << 16)
    steps = told[2:]  # after the probes and a step that warms up
    seconds = min(values["cpu_seconds"] for values in steps)
    answer.put({"seconds": seconds, "peak_bytes": steps[-1]["peak_bytes"], "flops_per_second": paced.rate})


def reading(pairs: int) -> dict[str, float]:
    """Processor seconds of ``TransitionDataModule.setup`` on a file of so many pairs of about 100 bytes."""
    from swirl_lightning.data import TransitionDataModule

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for n in range(pairs):
                row = {
                    "state": f"at {n}",
                    "next_state": f"at {n + 1}",
                    "action": "go on",
                    "episode": f"e{n // 50}",
                    "step": n % 50,
                }
                file.write(json.dumps(row) + "\n")
        started = time.process_time()
        TransitionDataModule(str(path)).setup("fit")
        return {"seconds": time.process_time() - started}


def exponent(points: Sequence[dict[str, float]], key: str) -> float:
    """Slope of log ``key`` over log value, least squares, of the larger half of the points."""
    half = points[len(points) // 2 :] if len(points) > 3 else points
    x = [math.log(point["value"]) for point in half]
    y = [math.log(point[key]) for point in half]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def measure(names: Sequence[str], rounds: int, largest: int, pairs: Sequence[int]) -> dict[str, Any]:
    """All points of the sweeps, and their exponents."""
    spawn = multiprocessing.get_context("spawn")
    result: dict[str, Any] = {}
    for name in names:
        sweep, points = SWEEPS[name], []
        for value in (n for n in sweep.values if n <= largest or name == "vocabulary"):
            shape, size = sweep.case(value)
            counted = _shapes.counted(shape, shared=True, size=size, token_budget=1 << 16).values()
            answer = spawn.Queue()
            worker = spawn.Process(target=step, args=(shape, size, rounds, answer))
            worker.start()
            while worker.is_alive() and answer.empty():
                time.sleep(0.2)
            if answer.empty():
                raise RuntimeError(f"{name} {value}: the step's process has died (exit code {worker.exitcode})")
            points.append({"value": value, "flops": sum(part.flops for part in counted)} | answer.get())
            worker.join()
            print(f"{name} {value}: {points[-1]['seconds']:.2f} s, {points[-1]['flops'] / 1e9:,.0f} GFLOP", flush=True)
        result[name] = {"unit": sweep.unit, "points": points}
    if pairs:
        reading(1000)  # imports
        points = [{"value": n, "flops": float(n)} | reading(n) for n in pairs]
        result["data"] = {"unit": "pairs, reading and splitting a file", "points": points}
    for found in result.values():
        found["exponent"] = exponent(found["points"], "seconds")
        found["counted_exponent"] = exponent(found["points"], "flops")
    return result


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = ["| grows | from | to | measured, s | exponent | counted exponent |", "|---|---|---|---|---|---|"]
    for name, found in result.items():
        first, last = found["points"][0], found["points"][-1]
        seconds = f"{first['seconds']:.2f} to {last['seconds']:.2f}"
        slopes = f"{found['exponent']:.2f} | {found['counted_exponent']:.2f}"
        lines.append(f"| {name} ({found['unit']}) | {first['value']:,} | {last['value']:,} | {seconds} | {slopes} |")
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> None:
    """Measured against counted, one panel a quantity; the count is drawn at the rate of large products."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(3.2 * len(result), 3.2), layout="constrained")
    for axis, (name, found) in zip(figure.subplots(1, len(result), squeeze=False)[0], result.items(), strict=True):
        x = [point["value"] for point in found["points"]]
        axis.loglog(x, [point["seconds"] for point in found["points"]], "o-", label="measured")
        if name != "data":
            axis.loglog(x, [point["flops"] / point["flops_per_second"] for point in found["points"]], "--", label="counted")
        axis.set_xticks(x, [f"{n:,}" if n < 1e4 else f"{n / 1000:,.0f}k" for n in x], fontsize=7)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(f"{name}: exponent {found['exponent']:.2f}", fontsize=10)
        axis.set_xlabel(found["unit"])
        axis.grid(visible=True, which="both", alpha=0.2)
        axis.legend(fontsize=8)
    figure.axes[0].set_ylabel("processor seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", nargs="*", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--rounds", type=int, default=2, help="counted steps of a point; the fastest is taken")
    parser.add_argument("--largest", type=int, default=16384, help="leaves out larger values (not of the vocabulary)")
    parser.add_argument("--pairs", nargs="*", type=int, default=[10_000, 100_000, 1_000_000, 10_000_000], help="of files read")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="needs matplotlib (the extra plot)")
    args = parser.parse_args()
    result = measure(args.sweeps, args.rounds, args.largest, args.pairs)
    print(table(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.picture:
        draw(result, args.picture)


if __name__ == "__main__":
    main()

"""What a step would take on 8 to 512 devices: measured parts of one device, counted communication, and nothing else.

A model, not a measurement. It takes two results of ``swirl_step.py`` (ours, different numbers of groups) and says how a step
of a fixed global batch divides under ``ddp``. Assumptions, all of them:

* A part takes ``a + b * groups`` seconds on a device; a and b go through the two measurements. What does not shrink with the
  batch is a: decoding's steps, Python, the optimizer.
* A device is ``--faster`` times as fast as the one measured, in all parts alike.
* Completions end at lengths that are uniform between a half and all of the longest, and a rank's rollout takes as long as its
  longest completion; a step waits for the slowest rank. Everything else is equal on all ranks.
* Gradients (4 bytes a parameter) are reduced in a ring after the backward pass, without overlap: ``2 g (N-1)/N`` bytes a device
  over the slowest link (inside a machine up to 8 devices, between machines beyond), and 2 (N-1) messages of ``--latency``.
* No part waits for data, disk, or checkpoints.

    python benchmarks/devices.py few.json many.json
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import _shapes

DEVICES = (1, 8, 16, 32, 64, 128, 256, 512)
MACHINE = 8  # devices that share the fast link


def line(few: dict[str, Any], many: dict[str, Any], part: str) -> tuple[float, float]:
    """Seconds a step and seconds a group of a part, through both measurements."""
    x, y = (float(result["groups"]) for result in (few, many))
    first, second = (float(result["ours"]["parts"][part]) for result in (few, many))
    slope = max((second - first) / (y - x), 0.0)
    return max(first - slope * x, 0.0), slope


def longest(rollouts: int, ranks: int, draws: int = 200) -> float:
    """Mean over draws of the slowest rank's longest completion, as a share of the longest possible one."""
    rng = random.Random(0)
    # the largest of n uniform numbers is distributed as u ** (1/n); the slowest rank has the largest of all of them
    return sum(0.5 + 0.5 * rng.random() ** (1 / (rollouts * ranks)) for _ in range(draws)) / draws


def step(lines: dict[str, tuple[float, float]], groups: float, ranks: int, args: argparse.Namespace) -> dict[str, float]:
    """Seconds by part of one step with ``groups`` groups a device."""
    parts = {name: (a + b * groups) / args.faster for name, (a, b) in lines.items()}
    parts["rollout"] *= longest(max(int(groups * args.group), 1), ranks)
    share = (ranks - 1) / ranks
    link = args.inside if ranks <= MACHINE else args.between
    parts["reduce"] = 2 * 4 * args.parameters * share / (link * 1e9) + 2 * (ranks - 1) * args.latency * 1e-6
    return parts


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("few", type=Path, help="result of swirl_step.py with few groups")
    parser.add_argument("many", type=Path, help="the same shape with more groups")
    parser.add_argument("--batch", type=int, default=512, help="groups of a global batch")
    parser.add_argument("--faster", type=float, default=1.0, help="how much faster than the one measured a device is")
    parser.add_argument("--parameters", type=float, default=_shapes.SMALL.parameters, help="of the model that is trained")
    parser.add_argument("--inside", type=float, default=200.0, help="GB/s between devices of a machine")
    parser.add_argument("--between", type=float, default=25.0, help="GB/s between machines")
    parser.add_argument("--latency", type=float, default=20.0, help="microseconds of a message")
    args = parser.parse_args()
    few, many = (json.loads(path.read_text(encoding="utf-8")) for path in (args.few, args.many))
    if few["shape"] != many["shape"] or few["groups"] >= many["groups"]:
        parser.error("give two results of one shape, the one with fewer groups first")
    args.group = few["group"]
    lines = {
        part: line(few, many, part) for part in many["ours"]["parts"] if part not in ("label",) or part in few["ours"]["parts"]
    }
    print(f"{few['shape']}: {args.batch} groups of {args.group} a step, {args.parameters / 1e6:.1f}M parameters\n")
    names = [*lines, "reduce"]
    print("| devices | groups a device | " + " | ".join(names) + " | step, s | efficiency | largest part |")
    print("|---" * (len(names) + 5) + "|")
    alone = 0.0
    for ranks in DEVICES:
        parts = step(lines, args.batch / ranks, ranks, args)
        total = sum(parts.values())
        alone = alone or total
        cells = [str(ranks), f"{args.batch / ranks:g}", *(f"{parts[name]:.2f}" for name in names)]
        ends = [f"{total:.2f}", f"{alone / (ranks * total):.0%}", max(parts, key=parts.__getitem__)]
        print("| " + " | ".join([*cells, *ends]) + " |")


if __name__ == "__main__":
    main()

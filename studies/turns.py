"""Several steps on: how far the FWMs of a finished study get on their own predictions, and differences paired by seed.

python studies/turns.py runs/study/doorkey --data data/quickstart --of recommended --against warmup pseudo-labels paper
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swirl_lightning.commands.loading import inference_from_folders
from swirl_lightning.data.reader import read_transitions
from swirl_lightning.evaluation.turns import Window, consecutive, run_turns
from swirl_lightning.metrics import mean_interval, relative_gain
from swirl_lightning.types import Role, SamplingParams


def right(folder: Path, windows: list[Window]) -> list[float]:
    """Share of stretches that a model has right after 1, 2, ... steps."""
    inference = inference_from_folders(folder, None)
    params = SamplingParams(max_new_tokens=inference.sampling[Role.FWM].max_new_tokens, temperature=0.0)
    return [turn["exact_match"] for turn in run_turns(inference, windows, params=params)]


def main() -> None:
    """Print the shares, and what the first method has more of than the others after the last step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--of", required=True)
    parser.add_argument("--against", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--limit", type=int, default=100, help="stretches of the test episodes")
    args = parser.parse_args()
    table = read_transitions(args.data)
    test = [row for row, split in enumerate(table.column("split")) if split == "test"]
    windows = consecutive(table.transitions(test), args.steps, args.limit)
    seeds = sorted(args.study.glob("seed-*"))
    print(f"exact match, {len(windows)} stretches, {len(seeds)} seeds\n")
    print(
        "| method | " + " | ".join(f"step {step + 1}" for step in range(args.steps)) + " |\n" + "|---" * (args.steps + 1) + "|"
    )
    last: dict[str, list[float]] = {}
    for method in (args.of, *args.against):
        found = [right(seed / method / "export" / "last" / "fwm", windows) for seed in seeds]
        steps = [mean_interval(of_step) if len(seeds) > 1 else (of_step[0],) * 3 for of_step in zip(*found, strict=True)]
        print(f"| {method} | " + " | ".join(f"{mean:.3f} ± {high - mean:.3f}" for mean, _, high in steps) + " |", flush=True)
        last[method] = [of_seed[-1] for of_seed in found]
    for other in args.against if len(seeds) > 1 else ():
        mean, low, high = mean_interval([a - b for a, b in zip(last[args.of], last[other], strict=True)])
        gain = [f"{100 * part:+.1f}" for part in relative_gain(last[args.of], last[other])]
        print(f"\n{args.of} - {other}, step {args.steps}: {mean:+.3f} [{low:+.3f}, {high:+.3f}], relative {gain[0]} %")


if __name__ == "__main__":
    main()

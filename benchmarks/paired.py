"""Differences between methods of a finished study, paired by seed, in points of the FWM's exact match.

python benchmarks/paired.py runs/study/minigrid --of swirl+nll swirl+replay --against sft-continue sft-merge sft-longer
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swirl_lightning.commands.report import MAIN, run_rows
from swirl_lightning.metrics import mean_interval


def values(study: Path, method: str) -> dict[str, float]:
    """The measure of a method's last models on test episodes, by seed; a supervised run's are called ``sft``."""
    role, measure = MAIN
    rows = {seed.name: run_rows(seed / method, method, "test", per_iteration=False) for seed in sorted(study.glob("seed-*"))}
    return {seed: found.get(method, found.get("sft", {}))[role][measure] for seed, found in rows.items()}


def main() -> None:
    """Print mean and 95 % interval of every difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--of", nargs="+", required=True)
    parser.add_argument("--against", nargs="+", required=True)
    args = parser.parse_args()
    for method in args.of:
        ours = values(args.study, method)
        for other in args.against:
            theirs = values(args.study, other)
            mean, low, high = mean_interval([100 * (ours[seed] - theirs[seed]) for seed in ours])
            print(f"{method} - {other}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}], {len(ours)} seeds")


if __name__ == "__main__":
    main()

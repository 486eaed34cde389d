"""Differences between methods of a finished study, paired by seed, in a measure of the FWM and relative to the other method.

python studies/paired.py runs/study/miniwob --of swirl+nll --against sft-continue
python studies/paired.py runs/study/visual --measure changed_accuracy --of swirl+nll --against warmup sft-continue
"""

from __future__ import annotations

import argparse
from pathlib import Path

from swirl_lightning.commands.report import run_rows
from swirl_lightning.metrics import mean_interval, relative_gain


def values(study: Path, method: str, measure: str) -> dict[str, float]:
    """A measure of a method's last models on test episodes, by seed; a supervised run's are called ``sft``."""
    rows = {seed.name: run_rows(seed / method, method, "test", per_iteration=False) for seed in sorted(study.glob("seed-*"))}
    return {seed: found.get(method, found.get("sft", {}))["fwm"][measure] for seed, found in rows.items()}


def main() -> None:
    """Print mean and 95 % interval of every difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--of", nargs="+", required=True)
    parser.add_argument("--against", nargs="+", required=True)
    parser.add_argument("--measure", default="exact_match")
    args = parser.parse_args()
    for method in args.of:
        ours = values(args.study, method, args.measure)
        for other in args.against:
            theirs = values(args.study, other, args.measure)
            mean, low, high = mean_interval([ours[seed] - theirs[seed] for seed in ours])
            gain = [f"{100 * part:+.1f}" for part in relative_gain([*ours.values()], [theirs[seed] for seed in ours])]
            relative = f"{gain[0]} % [{gain[1]}, {gain[2]}]"
            print(f"{method} - {other}: {mean:+.3f} [{low:+.3f}, {high:+.3f}], relative {relative}, {len(ours)} seeds")


if __name__ == "__main__":
    main()

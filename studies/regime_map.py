"""When to use which method? Their results over the number of labels and of state-only pairs, on DoorKey rooms.

    python studies/regime_map.py --out runs/regime

Every cell is a study of its own: finished SFT, pseudo-labels and the recommended recipe from there.
Finished runs are not run again. Writes ``regime.json`` and ``regime.png``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from swirl_lightning.commands.study import Method, Study

PASSES = {"model.schedule.order": ["pseudo"], "model.schedule.iterations": 8, "model.guard": None}
METHODS = [Method("pseudo-labels", PASSES), Method("recommended")]
SHOWN = ["sft", "pseudo-labels", "recommended"]
CALLBACKS = [
    {"class_path": "swirl_lightning.callbacks.BenchmarkEvaluation", "init_args": {"splits": ["test"]}},
    {"class_path": "swirl_lightning.callbacks.ExportModels"},
]


def run_cell(labels: int, pairs: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs all methods with so many labels and state-only pairs; a row for each seed and method."""
    study = Study(
        base=Path("configs/quickstart.yaml"),
        out=args.out / f"labels-{labels}-pairs-{pairs}",
        methods=METHODS,
        seeds=args.seeds,
        seed_options=["seed_everything", "data.init_args.seed", "model.world_model.seed"],
        workers=args.workers,
        overrides={
            "data.init_args.max_labelled": labels,
            "data.init_args.max_unlabelled": pairs,
            "trainer.callbacks": CALLBACKS,
        },
        of="recommended",
        title=f"{labels} labels, {pairs} state-only pairs",
    )
    found = {row["method"]: row for row in study.run()["rows"]}
    place = {"labels": labels, "pairs": pairs, "seeds": len(args.seeds)}
    return [{**place, "method": name, **{role: found[name][role]["exact_match"] for role in ("fwm", "idm")}} for name in SHOWN]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each role and number of state-only pairs: exact match over the number of labels, a line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    amounts = sorted({row["pairs"] for row in rows})
    figure, axes = plt.subplots(2, len(amounts), figsize=(4.2 * len(amounts), 6.6), sharex=True, sharey=True, squeeze=False)
    for column, pairs in enumerate(amounts):
        for line, role in enumerate(("fwm", "idm")):
            axis = axes[line][column]
            for method, marker in zip(SHOWN, "osv", strict=True):
                points = [(r["labels"], r[role]) for r in rows if (r["pairs"], r["method"]) == (pairs, method)]
                axis.plot(*zip(*points, strict=True), marker=marker, label=method, alpha=0.8)
            axis.set_title(f"{role.upper()}, {pairs:,} state-only pairs")
            axis.set_xscale("log")
    for axis in axes[-1]:
        axis.set_xlabel("labels")
    for axis in axes[:, 0]:
        axis.set_ylabel("exact match")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run all cells and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/regime"))
    parser.add_argument("--labels", type=int, nargs="+", default=[60, 100, 200, 400])
    parser.add_argument("--pairs", type=int, nargs="+", default=[640, 8360])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    rows = [row for pairs in args.pairs for labels in args.labels for row in run_cell(labels, pairs, args)]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "regime.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    draw(rows, args.out / "regime.png")
    print(f"{len(rows)} points: {args.out}/regime.json and regime.png")


if __name__ == "__main__":
    main()

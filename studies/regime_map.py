"""When SWIRL and when pseudo-labels? The FWM's gain of each method against the quality of the judge it started with.

    python studies/regime_map.py --out runs/regime

Worlds: DoorKey rooms as they are, with transitions made ambiguous (a share of actions slips) and with actions worded in several
ways. Warm-ups of several lengths give judges of several qualities. From each, one iteration of every method. Finished cells are
not run again. Writes ``regime.json`` and ``regime.png``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from swirl_lightning.commands.study import Method, Study

WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a fifth of the actions slips": {"slip": 0.2},
    "actions in several wordings": {"wording": "varied"},
}
METHODS = [
    Method("Phase I", {"model.schedule.order": ["fwm"], "model.schedule.iterations": 1}),
    Method("pseudo-labels", {"model.schedule.order": ["pseudo"], "model.schedule.iterations": 1}),
    Method(
        "Phase I + likelihood", {"model.schedule.order": ["fwm"], "model.schedule.iterations": 1, "model.fwm.nll_weight": 1.0}
    ),
]
EVALUATION = {"class_path": "swirl_lightning.callbacks.BenchmarkEvaluation", "init_args": {"splits": ["test"]}}
EXPORT = {"class_path": "swirl_lightning.callbacks.ExportModels"}


def run_world(name: str, options: dict[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Records a world, runs all its cells; a row for each warm-up and method."""
    slug = name.replace(" ", "-")
    data = {f"data.init_args.recorder.{option}": value for option, value in options.items()}
    rows = []
    for epochs in args.warmups:
        study = Study(
            base=Path("configs/quickstart.yaml"),
            out=args.out / slug / f"warmup-{epochs}",
            methods=METHODS,
            seeds=args.seeds,
            seed_options=["seed_everything", "data.init_args.seed", "model.world_model.seed"],
            workers=args.workers,
            overrides={
                "data.init_args.path": str(args.out / slug / "data"),
                **data,
                "trainer.callbacks": [EVALUATION],
            },
            warmup_overrides={
                "model.warmup_until": None,
                "model.schedule.warmup_epochs": epochs,
                "trainer.callbacks": [EVALUATION, EXPORT],
            },
            title=f"{name}, {epochs} warm-up epochs",
        )
        study.run()
        for seed in args.seeds:  # finished runs are only read
            report = {row["method"]: row for row in replace(study, seeds=[seed]).run()["rows"]}
            start = report["sft"]
            judge, before = start["idm"]["exact_match"], start["fwm"]["exact_match"]
            for method in METHODS:
                gain = report[method.name]["fwm"]["exact_match"] - before
                point = {"world": name, "warmup_epochs": epochs, "seed": seed, "method": method.name}
                rows.append({**point, "idm": judge, "fwm": before, "gain": gain})
    return rows


def study_points(folder: Path) -> list[dict[str, Any]]:
    """First iterations of a finished ``make study``, whose warm-ups end when the judge is good: a point a seed."""
    rows = []
    for seed in sorted(folder.glob("seed-*")):
        for run, method in (("swirl", "Phase I"), ("sft-continue", "pseudo-labels"), ("swirl+nll", "Phase I + likelihood")):
            lines = (seed / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            found = {r["label"]: r for r in map(json.loads, lines) if (r["split"], r["decoding"]) == ("test", "greedy")}
            start = found["start"]
            after = next(r for label, r in found.items() if label in ("swirl-1-fwm", "swirl-1-pseudo"))
            judge, before = start["idm"]["exact_match"], start["fwm"]["exact_match"]
            point = {"world": "plain", "warmup_epochs": None, "seed": int(seed.name.removeprefix("seed-")), "method": method}
            rows.append({**point, "idm": judge, "fwm": before, "gain": after["fwm"]["exact_match"] - before})
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel a world: gain in the FWM's exact match against the judge's, and against the FWM's own before."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    worlds = list(dict.fromkeys(row["world"] for row in rows))
    figure, axes = plt.subplots(2, len(worlds), figsize=(4.2 * len(worlds), 6.6), sharex=True, sharey=True, squeeze=False)
    for column, world in enumerate(worlds):
        for line, (quality, label) in enumerate([("idm", "IDM, the judge"), ("fwm", "FWM")]):
            axis = axes[line][column]
            for method, marker in zip(METHODS, "o^s", strict=True):
                points = [(r[quality], r["gain"]) for r in rows if (r["world"], r["method"]) == (world, method.name)]
                axis.scatter(*zip(*points, strict=True), marker=marker, label=method.name, alpha=0.7)
            axis.axhline(0, color="grey", linewidth=0.8)
            axis.set_xlabel(f"exact match after the warm-up: {label}")
        axes[0][column].set_title(world)
    for axis in axes[:, 0]:
        axis.set_ylabel("gain in FWM exact match")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run all cells and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/regime"))
    parser.add_argument("--warmups", type=int, nargs="+", default=[50, 70, 100], help="warm-up epochs, of eight batches")
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--study", type=Path, help="add the first iterations of a finished study: runs/study/minigrid")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    rows = [row for name in args.worlds for row in run_world(name, WORLDS[name], args)]
    rows += study_points(args.study) if args.study else []
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "regime.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    draw(rows, args.out / "regime.png")
    print(f"{len(rows)} points: {args.out}/regime.json and regime.png")


if __name__ == "__main__":
    main()

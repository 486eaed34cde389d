"""Tables out of runs: rows per method, means and intervals over seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swirl_lightning.metrics.intervals import mean_interval, relative_gain

if TYPE_CHECKING:
    from swirl_lightning.commands.study import Study

Measures = dict[str, dict[str, float]]  # role -> measure -> value
_PHASE_LABEL = re.compile(r"^swirl-(\d+)-(\w+)$")
SHOWN = {  # column title: (role, measure)
    "FWM exact": ("fwm", "exact_match"),
    "FWM exact, sampled": ("fwm", "sampled/exact_match"),
    "FWM token acc.": ("fwm", "token_accuracy"),
    "FWM log P": ("fwm", "logprob"),
    "IDM exact": ("idm", "exact_match"),
    "IDM exact, sampled": ("idm", "sampled/exact_match"),
    "IDM log Q": ("idm", "logprob"),
}


def run_rows(folder: Path, name: str, split: str, per_iteration: bool = True) -> dict[str, Measures]:
    """Rows of one run, from its ``metrics.jsonl``.

    Args:
        folder: run folder.
        name: name of the method.
        split: split to report.
        per_iteration: a row after every iteration (``name-k``) instead of one after the last.

    Returns:
        Row name to measures: ``sft`` and ``best-of-N`` from the warm-up, ``name-k`` or ``name`` from the phases.

    Raises:
        FileNotFoundError: if the run has no metrics.
        ValueError: if there is no evaluation of the split.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run needs the callback BenchmarkEvaluation, and to have finished a phase")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if record["split"] == split]
    if not records:
        raise ValueError(f"{path} has no evaluation on split {split!r}")
    rows: dict[str, Measures] = {}
    for record in records:
        if record["label"] in ("warmup", "start"):
            rows["sft"] = _measures(record)
            rows.update(_verification_rows(record))
        elif match := _PHASE_LABEL.match(record["label"]):
            rows[f"{name}-{match[1]}" if per_iteration else name] = _measures(record)  # later phases replace earlier ones
    return rows


def _measures(record: Mapping[str, Any]) -> Measures:
    return {role: {k: v for k, v in record[role].items() if not k.startswith("best_of_")} for role in ("fwm", "idm")}


def _verification_rows(record: Mapping[str, Any]) -> dict[str, Measures]:
    rows: dict[str, Measures] = {}
    for key, value in record["fwm"].items():
        if match := re.match(r"best_of_(\d+)/(.+)", key):
            rows.setdefault(f"best-of-{match[1]}", {"fwm": {}, "idm": {}})["fwm"][match[2]] = value
    return rows


def summarise(name: str, per_seed: Sequence[Measures], sft: Sequence[Measures] | None) -> dict[str, Any]:
    """One row: means, 95 % intervals over seeds where there are at least two, and the paired gain over SFT."""
    row: dict[str, Any] = {"method": name, "seeds": len(per_seed)}
    for role in ("fwm", "idm"):
        measures = per_seed[0][role]
        row[role] = {m: sum(s[role][m] for s in per_seed) / len(per_seed) for m in measures}
        if len(per_seed) > 1:
            row[f"{role}_interval"] = {m: list(mean_interval([s[role][m] for s in per_seed])[1:]) for m in measures}
    main = ("fwm", "exact_match")
    if sft is not None and len(sft) == len(per_seed) and main[1] in per_seed[0][main[0]]:
        ours = [s[main[0]][main[1]] for s in per_seed]
        base = [s[main[0]][main[1]] for s in sft]
        if len(ours) > 1:
            row["fwm_gain"] = list(relative_gain(ours, base))
        elif base[0] > 0:
            row["fwm_gain"] = [ours[0] / base[0] - 1]
    return row


def build_report(study: Study, seconds: float) -> dict[str, Any]:
    """Collects all cells of a study into rows."""
    collected: dict[str, dict[int, Measures]] = {}
    costs: dict[str, list[float]] = {}
    for seed in study.seeds:
        cells = [(study.folder(seed, None), "swirl", True)]
        cells += [(study.folder(seed, m), m.name, m.per_iteration) for m in study.methods]
        for i, (folder, name, per_iteration) in enumerate(cells):
            for row, measures in run_rows(folder, name, study.split, per_iteration).items():
                if i == 0 or row not in ("sft",) and not row.startswith("best-of-"):
                    collected.setdefault(row, {})[seed] = measures
            costs.setdefault(name if i else "warmup", []).append(run_seconds(folder))
    sft = collected["sft"]
    rows = [
        summarise(name, [by_seed[s] for s in sorted(by_seed)], [sft[s] for s in sorted(by_seed)])
        for name, by_seed in collected.items()
    ]
    return {
        "rows": rows,
        "seconds": seconds,
        "seconds_per_run": {name: sum(v) / len(v) for name, v in costs.items()},
        "seeds": study.seeds,
        "split": study.split,
        "config": str(study.base),
    }


def run_seconds(folder: Path) -> float:
    """Wall time of a run's training, as its metrics file says; 0 when unknown."""
    path = folder / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return max((float(record.get("elapsed", 0.0)) for record in records), default=0.0)


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, with ``±`` half-widths of 95 % intervals where there are several seeds."""
    header = ["method", *SHOWN, "FWM gain over SFT"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in rows:
        cells = [row["method"]]
        for role, measure in SHOWN.values():
            value = row[role].get(measure)
            interval = row.get(f"{role}_interval", {}).get(measure)
            half = f" ± {(interval[1] - interval[0]) / 2:.3f}" if interval else ""
            cells.append("" if value is None else f"{value:.3f}{half}")
        gain = row.get("fwm_gain")
        if gain is None or row["method"] == "sft":
            cells.append("")
        else:
            cells.append(f"{gain[0]:+.1%}" + (f" [{gain[1]:+.1%}, {gain[2]:+.1%}]" if len(gain) == 3 else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_report(report: Mapping[str, Any], out: Path, title: str) -> None:
    """Writes ``report.json`` and ``report.md`` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=2, default=float) + "\n", encoding="utf-8")
    seeds = len(report["seeds"])
    text = [
        f"# {title}",
        "",
        f"Held-out episodes ({report['split']} split), {seeds} seed{'s' if seeds > 1 else ''}"
        + (", mean ± half-width of the 95 % interval over seeds (Student t)." if seeds > 1 else "."),
        "",
        as_markdown(report["rows"]),
        "",
    ]
    (out / "report.md").write_text("\n".join(text), encoding="utf-8")

"""Tables out of runs: rows per method, means and intervals over seeds."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl_lightning.files import HEALTH, METRICS
from swirl_lightning.metrics import mean_interval, relative_gain

Measures = dict[str, dict[str, float]]  # role -> measure -> value; sampled decoding with the prefix "sampled/"
_PHASE_LABEL = re.compile(r"^swirl-(\d+)-(\w+)$")
MAIN = ("fwm", "exact_match")
SHOWN = {  # column title: (role, measure)
    "FWM exact": MAIN,
    "FWM exact, sampled": ("fwm", "sampled/exact_match"),
    "FWM changed acc.": ("fwm", "changed_accuracy"),
    "FWM log P": ("fwm", "logprob"),
    "IDM exact": ("idm", "exact_match"),
    "IDM exact, sampled": ("idm", "sampled/exact_match"),
    "IDM log Q": ("idm", "logprob"),
    "mean of both": ("both", "exact_match"),
}
IF_MEASURED = {  # columns of worlds that have them
    "FWM exact, changed": ("fwm", "changed/exact_match"),
    "FWM tool BLEU": ("fwm", "tool_bleu"),
    "FWM ROUGE-L": ("fwm", "rouge_l"),
    "FWM changed elements F1": ("fwm", "changed_element_f1"),
    "FWM world right": ("fwm", "world_read_right"),
    "FWM world right, sampled": ("fwm", "sampled/world_read_right"),
}


def run_rows(folder: Path, name: str, split: str, per_iteration: bool = True) -> dict[str, Measures]:
    """Rows of one run, from its ``metrics.jsonl``.

    Args:
        folder: Run folder.
        name: Name of the method.
        split: Split to report.
        per_iteration: A row after every iteration (``name-k``) instead of one after the last.

    Returns:
        Row name to measures: ``copy``, ``sft`` and ``best-of-N`` from the models that the phases start from, ``name-k`` or
        ``name`` from the phases.

    Raises:
        FileNotFoundError: if the run has no metrics.
        ValueError: if there is no evaluation of the split.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run needs the callback BenchmarkEvaluation and a finished phase")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if record["split"] == split]
    if not records:
        raise ValueError(f"{path} has no evaluation on split {split!r}; BenchmarkEvaluation.splits says which are made")
    rows: dict[str, Measures] = {}
    for record in records:
        prefix = "" if record["decoding"] == "greedy" else f"{record['decoding']}/"
        if record["label"] in ("warmup", "start"):
            merge(rows, "sft", record, prefix)
            if not prefix:
                rows["copy"] = {"fwm": record["copy"], "idm": {}, "both": {}}
            for key in (key for key in record if key.startswith("best_of_")):
                merge(rows, key.replace("_", "-"), {"fwm": record[key]}, prefix)
        elif match := _PHASE_LABEL.match(record["label"]):
            merge(rows, f"{name}-{match[1]}" if per_iteration else name, record, prefix)  # later phases replace earlier
    return rows


def carry_on(collected: dict[str, dict[int, Measures]], name: str) -> dict[int, int]:
    """Gives a run that its guard ended early the rows of later iterations, too: those of its last models.

    Without them the rows of later iterations would be of those seeds alone that went on.

    Args:
        collected: Row name to measures of every seed; rows ``name-k`` are added to.
        name: Of a method with a row after every iteration.

    Returns:
        The last iteration of each seed whose run ended before another seed's.
    """
    numbered = {int(row.removeprefix(f"{name}-")): row for row in collected if re.fullmatch(rf"{re.escape(name)}-\d+", row)}
    ended: dict[int, int] = {}
    for before, k in itertools.pairwise(sorted(numbered)):
        rows, earlier = collected[numbered[k]], collected[numbered[before]]
        for seed in earlier.keys() - rows.keys():
            ended.setdefault(seed, before)
            rows[seed] = earlier[seed]
    return ended


def merge(rows: dict[str, Measures], name: str, record: Mapping[str, Any], prefix: str) -> None:
    """Adds the measures of a line of ``metrics.jsonl`` to the row of that name, those of a decoding under its prefix."""
    row = rows.setdefault(name, {"fwm": {}, "idm": {}, "both": {}})
    for role in ("fwm", "idm"):
        row[role].update({prefix + measure: value for measure, value in record.get(role, {}).items()})
    key = f"{prefix}exact_match"
    if key in row["fwm"] and key in row["idm"]:
        row["both"][key] = (row["fwm"][key] + row["idm"][key]) / 2


def summarise(
    name: str, per_seed: Sequence[Measures], sft: Sequence[Measures] | None, measure: str = MAIN[1]
) -> dict[str, Any]:
    """One row: means, 95 % intervals over seeds where there are at least two, and the gain over SFT, paired by seed.

    Args:
        name: Name of the row.
        per_seed: Measures of every seed.
        sft: The baseline's, of the same seeds; None for no gain.
        measure: The FWM's measure that the gain is about.
    """
    row: dict[str, Any] = {"method": name, "seeds": len(per_seed)}
    for role in ("fwm", "idm", "both"):
        measures = set.intersection(*(set(measures.get(role, ())) for measures in per_seed))
        row[role] = {m: sum(s[role][m] for s in per_seed) / len(per_seed) for m in sorted(measures)}
        if len(per_seed) > 1:
            row[f"{role}_interval"] = {m: list(mean_interval([s[role][m] for s in per_seed])[1:]) for m in row[role]}
    for suffix, key in (("", measure), ("_sampled", f"sampled/{measure}")):
        if sft is not None and len(sft) == len(per_seed) and key in row[MAIN[0]]:
            ours, base = ([s[MAIN[0]][key] for s in rows] for rows in (per_seed, sft))
            if len(ours) > 1 and sum(base) > 0:
                row[f"fwm_gain{suffix}"] = list(relative_gain(ours, base))
            elif len(ours) == 1 and base[0] > 0:
                row[f"fwm_gain{suffix}"] = [ours[0] / base[0] - 1]
    return row


def differences(
    collected: Mapping[str, Mapping[int, Measures]], of: str, measure: str = MAIN[1]
) -> dict[str, dict[str, list[float]]]:
    """How much better one row is than each other, paired by seed.

    Args:
        collected: Row name to seed to measures.
        of: The row.
        measure: The FWM's measure; the IDM and the mean of both are compared in exact match.

    Returns:
        Other row to column to the mean difference and, with several seeds, its 95 % interval.

    Raises:
        ValueError: if there is no such row.
    """
    if of not in collected:
        raise ValueError(f"study: of names no row: {of!r} is not among {', '.join(collected)}")
    found: dict[str, dict[str, list[float]]] = {}
    for name, by_seed in collected.items():
        for title, role, key in (("FWM", "fwm", measure), ("IDM", "idm", "exact_match"), ("mean", "both", "exact_match")):
            pairs = [(collected[of][seed], by_seed[seed]) for seed in by_seed.keys() & collected[of].keys()]
            values = [ours[role][key] - theirs[role][key] for ours, theirs in pairs if key in theirs[role]]
            if name != of and values:
                found.setdefault(name, {})[title] = list(mean_interval(values)) if len(values) > 1 else values
    return found


def differences_as_markdown(found: Mapping[str, Mapping[str, Sequence[float]]], of: str) -> str:
    """The table of ``differences``."""
    lines = [f"| {of} minus | FWM | IDM | mean of both |", "|---|---|---|---|"]
    for name, row in found.items():
        cells = [_difference(row.get(title, ())) for title in ("FWM", "IDM", "mean")]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def _difference(value: Sequence[float]) -> str:
    if not value:
        return ""
    return f"{value[0]:+.3f}" + (f" [{value[1]:+.3f}, {value[2]:+.3f}]" if len(value) == 3 else "")


def records(path: Path) -> list[dict[str, Any]]:
    """Lines of a file of a run; none where there is no such file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def run_costs(folder: Path, warmup_only: bool = False) -> dict[str, float]:
    """Time, tokens sampled by training up to a run's last evaluation, and the health of its latent actions at the end.

    Args:
        folder: Run folder.
        warmup_only: Up to the end of the warm-up.

    Returns:
        ``seconds`` and, of the processor, ``cpu_seconds`` (since the start or the last resume), ``generated_tokens``,
        ``code_gap`` and ``unique_share``, where known.
    """
    measured, health = (
        [record for record in records(folder / name) if not warmup_only or record["label"] in ("warmup", "start")]
        for name in (METRICS, HEALTH)
    )
    costs: dict[str, float] = {}
    for field, name in (("elapsed", "seconds"), ("cpu_seconds", "cpu_seconds"), ("generated_tokens", "generated_tokens")):
        found = [float(record[field]) for record in measured if field in record]
        costs |= {name: max(found)} if found else {}
    last = (health or [{}])[-1]
    return costs | {name: float(last[name]) for name in ("code_gap", "unique_share") if name in last}


def costs_as_markdown(costs: Mapping[str, Mapping[str, float]]) -> str:
    """What a run of each method cost, and its latent actions' health, where there is any; means over seeds."""
    columns = {"minutes": ("seconds", 60), "processor minutes": ("cpu_seconds", 60), "tokens sampled": ("generated_tokens", 1)}
    health = {"code gap": ("code_gap", 1), "unique actions": ("unique_share", 1)}
    columns |= {title: column for title, column in health.items() if any(column[0] in row for row in costs.values())}
    lines = ["| run | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in costs.items():
        means = {
            key: round(row[key]) if key == "generated_tokens" else row[key] / unit
            for key, unit in columns.values()
            if key in row
        }
        cells = [f"{means[key]:,.2f}".removesuffix(".00") if key in means else "" for key, _ in columns.values()]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, with ``±`` half-widths of 95 % intervals where there are several seeds."""
    there = {title: (role, name) for title, (role, name) in IF_MEASURED.items() if any(name in row[role] for row in rows)}
    columns = {**SHOWN, **there}
    header = ["method", *columns, "FWM gain over SFT", "gain, sampled"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in rows:
        cells = [row["method"]]
        for role, measure in columns.values():
            value = row[role].get(measure)
            interval = row.get(f"{role}_interval", {}).get(measure)
            half = f" ± {(interval[1] - interval[0]) / 2:.3f}" if interval else ""
            cells.append("" if value is None else f"{value:.3f}{half}")
        for suffix in ("", "_sampled"):
            gain = None if row["method"] in ("sft", "copy") else row.get(f"fwm_gain{suffix}")
            cells.append("" if gain is None else _percent(gain))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(gain: Sequence[float]) -> str:
    return f"{gain[0]:+.1%}" + (f" [{gain[1]:+.1%}, {gain[2]:+.1%}]" if len(gain) == 3 else "")


def write_report(report: Mapping[str, Any], out: Path, title: str) -> None:
    """Writes ``report.json`` and ``report.md`` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=2, default=float) + "\n", encoding="utf-8")
    seeds = len(report["seeds"])
    intervals = ", mean ± half-width of the 95 % interval over seeds (Student t)" if seeds > 1 else ""
    text = [
        f"# {title}",
        "",
        f"Held-out episodes ({report['split']} split), {seeds} seed{'s' if seeds > 1 else ''}{intervals}. Greedy decoding "
        f"unless it says sampled (temperature 0.75, top-p 0.96). The gain is in {report['measure']}.",
        "",
        *_tables(report),
        "What a run took on average. Tokens are those that training sampled; the code gap is the next state's log-probability "
        "under the IDM's action minus under the true one.",
        "",
        costs_as_markdown(report["costs"]),
        "",
    ]
    (out / "report.md").write_text("\n".join(text), encoding="utf-8")


def _tables(report: Mapping[str, Any]) -> list[str]:
    """The rows, and the differences where a row is named, as lines of Markdown."""
    lines = [as_markdown(report["rows"]), ""]
    for name, ended in report.get("ended", {}).items():
        runs = ", ".join(f"seed {seed} after iteration {k}" for seed, k in sorted(ended.items()))
        lines += [f"{name}: ended by its guard were {runs}; later rows have their last models.", ""]
    if report.get("differences"):
        lines += [differences_as_markdown(report["differences"], report["of"]), ""]
    return lines


def write_page(report: Mapping[str, Any], page: Path) -> None:
    """Puts the table into a Markdown page, between ``<!-- report -->`` and ``<!-- /report -->``.

    Raises:
        ValueError: if the page lacks the two marks.
    """
    begin, end = "<!-- report -->", "<!-- /report -->"
    text = page.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise ValueError(f"{page} has no place for the report: it needs the lines {begin} and {end}")
    before, after = text[: text.index(begin)], text[text.index(end) :]
    tables = "\n".join([*_tables(report), costs_as_markdown(report["costs"]), ""])
    page.write_text(f"{before}{begin}\n{tables}{after}", encoding="utf-8")

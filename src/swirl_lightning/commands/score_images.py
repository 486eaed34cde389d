"""Scoring predicted images: pixels, CLIP, and a judge (AURORA-Bench, ByteMorph)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from swirl_lightning.commands.options import Columns
from swirl_lightning.commands.predictions import json_lines, text_field
from swirl_lightning.evaluation.judge import Judge, Question, Verdict
from swirl_lightning.metrics.clip import ClipEncoder, clip_similarities
from swirl_lightning.metrics.images import ImageSimilarity

SHOWN = (
    "psnr",
    "ssim",
    "clip_image",
    "clip_text",
    "clip_direction_image",
    "clip_direction_text",
    "judge_success",
    "judge_restraint",
)
_AT_ONCE = 16
_ASKED = {
    "judge_success": "Was the edit carried out in the second image? "
    "{low} means not at all, {high} means completely and correctly.",
    "judge_restraint": "Apart from the edit, was the second image left as it was? "
    "{low} means that nearly everything else changed, {high} means that nothing else did.",
}
_QUESTION = (
    "The first image was to be edited as follows: {action}\nThe second image is the result.\n{asked}\n"
    'Answer with one JSON object: {{"score": NUMBER, "reason": "one sentence"}}'
)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One line of a file of predictions; images are paths, relative to the file."""

    prediction: bytes
    reference: bytes | None
    state: bytes | None
    split: str | None
    action: str | None
    caption: str | None
    state_caption: str | None


def read_images(path: Path, columns: Columns | None = None) -> list[ImageRow]:
    """Lines with ``prediction`` and, in all or none, ``reference``, ``state``, ``split``, ``action``, captions.

    Args:
        path: The file.
        columns: Field to column where names differ.

    Raises:
        FileNotFoundError: if the file or an image that it names is not there; the message says which line.
        ValueError: naming file, line and field of what is wrong.
    """
    rows: list[ImageRow] = []
    given: list[str] = []
    for where, record in json_lines(path, columns, ImageRow.__slots__):
        texts = {name: text_field(where, record, name, name == "prediction") for name in ImageRow.__slots__}
        names = [name for name, value in texts.items() if value is not None]
        given = given or names
        if names != given:
            raise ValueError(f"{where}: has the fields {', '.join(names)}, but the lines before have {', '.join(given)}")
        values: dict[str, Any] = dict(texts)
        for name in ("prediction", "reference", "state"):
            if (value := texts[name]) is not None:
                file = path.parent / value
                if not file.is_file():
                    raise FileNotFoundError(f"{where}: field {name!r} names {file}, which is not there")
                values[name] = file.read_bytes()
        rows.append(ImageRow(**values))
    return rows


def score_images(file: Path, out: Path, clip: Path | None, judge: Judge | None, columns: Columns | None = None) -> str:
    """Scores a file of predicted images and writes the measures as JSON, those of every row among them.

    Args:
        file: JSON lines.
        out: JSON file to write.
        clip: Folder of a CLIP model; None goes without.
        judge: A judge, for rows with ``state`` and ``action``; None goes without.
        columns: Field to column where names differ.

    Returns:
        The table, as Markdown, and what the judge did.

    Raises:
        ValueError: if there is a judge but no row with state and action, or nothing to measure.
    """
    rows = read_images(file, columns)
    if rows[0].reference is None and judge is None:
        raise ValueError(f"{file} holds no reference: only a judge can score it (--judge.base_url)")
    encoder = None if clip is None else ClipEncoder(clip)
    copies = rows[0].state is not None and rows[0].reference is not None
    sides = ("prediction", "copy") if copies else ("prediction",)
    values: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tqdm(total=len(rows) * len(sides), desc="score", unit="image") as bar:
        for side in sides:
            for begin in range(0, len(rows), _AT_ONCE):
                part = rows[begin : begin + _AT_ONCE]
                values[side].extend(_measured(part, [_drawn(row, side) for row in part], encoder))
                bar.update(len(part))
    judged, failures = "", list[dict[str, object]]()
    if judge is not None:
        judged, failures = _judge(judge, rows, values["prediction"])
    results = list(_summaries(rows, values))
    report = {"benchmark": "images", "file": str(file), "results": results, "rows": values["prediction"], "failures": failures}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return _as_markdown(results) + judged


def _drawn(row: ImageRow, side: str) -> bytes:
    return row.prediction if side == "prediction" or row.state is None else row.state


def _measured(rows: Sequence[ImageRow], drawn: Sequence[bytes], clip: ClipEncoder | None) -> list[dict[str, float]]:
    """Measures of each row; those that are not defined are left out, and all where there is no reference."""
    references = [row.reference for row in rows if row.reference is not None]
    if not references:
        return [{} for _ in rows]
    measured: list[dict[str, float]] = []
    for reference, image in zip(references, drawn, strict=True):
        values = {}
        for name in ("psnr", "ssim"):
            metric = ImageSimilarity(name)
            metric.update([image], [reference])
            values[name] = float(metric.compute())
        measured.append(values)
    if clip is not None:
        more = {
            name: None if getattr(rows[0], field) is None else [getattr(row, field) for row in rows]
            for name, field in (("states", "state"), ("captions", "caption"), ("state_captions", "state_caption"))
        }
        similarities = clip_similarities(clip, drawn, references, **more)  # type: ignore[arg-type]
        for name, cosines in similarities.items():
            for values, cosine in zip(measured, cosines.tolist(), strict=True):
                values[name] = cosine
    return [{name: value for name, value in values.items() if not math.isnan(value)} for values in measured]


def _judge(judge: Judge, rows: Sequence[ImageRow], values: Sequence[dict[str, float]]) -> tuple[str, list[dict[str, object]]]:
    """Adds the judge's scores to the rows' values; what it did, and which rows have no score, with the reason."""
    if rows[0].state is None or rows[0].action is None:
        raise ValueError("the judge compares state and prediction under an action: give every line the fields state and action")
    low, high = (f"{bound:g}" for bound in judge.scale)
    failures: list[dict[str, object]] = []
    with tqdm(total=len(rows) * len(_ASKED), desc="judge", unit="question") as bar:
        for name, asked in _ASKED.items():
            wording = asked.format(low=low, high=high)
            questions = [
                Question(_QUESTION.format(action=row.action, asked=wording), (row.state or b"", row.prediction)) for row in rows
            ]
            verdicts: list[Verdict] = judge.ask(questions, progress=bar.update)
            for number, (verdict, measured) in enumerate(zip(verdicts, values, strict=True), 1):
                if verdict.score is None:
                    failures.append({"line": number, "measure": name, "error": verdict.error})
                else:
                    measured[name] = verdict.score
    counts = ", ".join(f"{count} {name}" for name, count in sorted(judge.counts.items())) or "nothing asked"
    spent = f"; {judge.cost:.2f} dollars" if judge.cost else ""
    return f"\njudge {judge.model}: {counts}{spent}; {len(failures)} without a score", failures


def _summaries(rows: Sequence[ImageRow], values: Mapping[str, Sequence[dict[str, float]]]) -> Iterator[dict[str, Any]]:
    """Means by split and over all, for predictions and copies, with how many rows have a measure where not all do."""
    splits = [str(split) for split in dict.fromkeys(row.split for row in rows) if split is not None]
    for split in [*(splits if len(splits) > 1 else []), "all" if len(splits) != 1 else splits[0]]:
        chosen = [i for i, row in enumerate(rows) if len(splits) < 2 or split in ("all", row.split)]
        for side, measured in values.items():
            measures, counts = {}, {}
            for name in SHOWN:
                known = [measured[i][name] for i in chosen if name in measured[i]]
                if known:
                    measures[name] = sum(known) / len(known)
                    if len(known) < len(chosen):
                        counts[name] = len(known)
            yield {"split": split, "row": side, "count": len(chosen), "measures": measures, "counts": counts}


def _as_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    columns = [name for name in SHOWN if any(name in result["measures"] for result in results)]
    lines = ["| " + " | ".join(["split", "row", "count", *columns]) + " |", "|---" * 3 + "|---:" * len(columns) + "|"]
    for result in results:
        shown = []
        for name in columns:
            value, few = result["measures"].get(name), result["counts"].get(name)
            shown.append(
                "" if value is None else (f"{value:.4f}" if abs(value) <= 1 else f"{value:.2f}") + (f" ({few})" if few else "")
            )
        lines.append("| " + " | ".join([*(str(result[k]) for k in ("split", "row", "count")), *shown]) + " |")
    return "\n".join(lines)

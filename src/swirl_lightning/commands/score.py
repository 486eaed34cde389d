"""``swirl score``: measures of anyone's predictions, without a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from swirl_lightning.commands.options import Columns
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.commands.predictions import json_lines, text_field
from swirl_lightning.evaluation.judge import Judge
from swirl_lightning.metrics import Benchmark, score_metrics

SHOWN = {  # the columns of a benchmark's table; the JSON file has every measure
    "text": ("exact_match", "bleu", "rouge_l", "bert_score", "changed_accuracy"),
    "tools": ("exact_match", "tool_bleu", "bleu", "rouge_l", "bert_score", "field_f1", "json_valid", "error_accuracy"),
    "web": ("exact_match", "rouge_l", "bert_score", "dom_edit_distance", "changed_element_f1"),
}
_AT_ONCE = 32  # rows between two movements of the progress bar


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file of predictions."""

    prediction: str
    reference: str
    state: str | None
    split: str | None


def read_predictions(path: Path, columns: Columns | None = None) -> list[Row]:
    """Lines with ``prediction``, ``reference`` and, in all of them or in none, ``state`` and ``split``.

    Args:
        path: The file.
        columns: Field to column where names differ.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming file, line and field of what is wrong.
    """
    rows: list[Row] = []
    for where, record in json_lines(path, columns, Row.__slots__):
        values = [text_field(where, record, name, required=name in ("prediction", "reference")) for name in Row.__slots__]
        rows.append(Row(*values))  # type: ignore[arg-type]
        for name in ("state", "split"):
            if (getattr(rows[0], name) is None) != (getattr(rows[-1], name) is None):
                has, lacks = (where, f"{path}, line 1") if getattr(rows[0], name) is None else (f"{path}, line 1", where)
                raise ValueError(f"{lacks}: field {name!r} is missing, but {has} has it; give it everywhere or nowhere")
    return rows


def score(
    benchmark: Benchmark,
    file: Path,
    out: Path,
    bert_score: Path | None,
    bert_layer: int | None,
    columns: Columns | None = None,
) -> str:
    """Scores a file of predictions and writes the measures as JSON.

    Args:
        benchmark: Text, tools or web.
        file: JSON lines.
        out: JSON file to write.
        bert_score: Folder of BERTScore's encoder; None goes without.
        bert_layer: Hidden layer that BERTScore compares; None is the last.
        columns: Field to column where names differ.

    Returns:
        The table, as Markdown.
    """
    rows = read_predictions(file, columns)
    scorer = None
    if bert_score is not None:
        from swirl_lightning.metrics.bertscore import BertScore  # brings transformers with it

        scorer = BertScore(bert_score, bert_layer)
    groups = list(_groups(rows))
    results: list[dict[str, Any]] = []
    with tqdm(total=sum(len(part) for *_, part in groups), desc="score", unit="row") as bar:
        for split, subset, who, part in groups:
            metrics = score_metrics(benchmark, states=part[0].state is not None)
            if scorer is not None:
                scorer.reset()
                metrics.add_metrics({"bert_score": scorer})
            for begin in range(0, len(part), _AT_ONCE):
                batch = part[begin : begin + _AT_ONCE]
                predicted = [str(row.state) if who == "copy" else row.prediction for row in batch]
                states = {"states": [row.state for row in batch]} if batch[0].state is not None else {}
                metrics.update(predictions=predicted, references=[row.reference for row in batch], **states)
                bar.update(len(batch))
            values = {name: float(value) for name, value in metrics.compute().items()}
            measures = {name: value for name, value in values.items() if value == value}
            cut = {} if scorer is None else {"bert_score_cut_texts": int(scorer.truncated)}
            results.append({"split": split, "transitions": subset, "row": who, "count": len(part), **cut, "measures": measures})
    report = {"benchmark": benchmark, "file": str(file), "results": results}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return as_markdown(benchmark, results)


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, Sequence[Row]]]:
    """Every split and all of them; all transitions and the changed ones; predictions and copies of the state."""
    splits = list(dict.fromkeys(row.split for row in rows))
    parts = [] if splits == [None] else [(str(split), [row for row in rows if row.split == split]) for split in splits]
    for split, part in [*(parts if len(parts) > 1 else []), ("all" if len(parts) != 1 else parts[0][0], rows)]:
        changed = [row for row in part if row.state != row.reference]
        subsets: list[tuple[str, Sequence[Row]]] = [("all", part)]
        if rows[0].state is not None:
            subsets = [*subsets, ("changed", changed)] if len(changed) < len(part) else [("all, all changed", part)]
        for subset, chosen in subsets:
            for who in ("prediction", "copy") if rows[0].state is not None else ("prediction",):
                if chosen:
                    yield split, subset, who, chosen


def as_markdown(benchmark: Benchmark, results: Sequence[Mapping[str, Any]]) -> str:
    """The table: a line a split, subset and row."""
    columns = [name for name in SHOWN[benchmark] if any(name in result["measures"] for result in results)]
    lines = [
        "| " + " | ".join(["split", "transitions", "row", "count", *columns]) + " |",
        "|---" * 4 + "|---:" * len(columns) + "|",
    ]
    for result in results:
        values = [result["measures"].get(name) for name in columns]
        shown = ["" if value is None else f"{value:.4f}" if abs(value) <= 1 else f"{value:.2f}" for value in values]
        lines.append("| " + " | ".join([*(str(result[k]) for k in ("split", "transitions", "row", "count")), *shown]) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = Parser(
        prog="swirl score",
        description="Score predictions without a model. Each line of FILE is a JSON object with prediction, reference and, if "
        "known, state (adds the copy baseline and the changed transitions) and split (adds a row each); for images also action "
        "(for the judge), caption and state_caption (for CLIP).",
    )
    parser.add_argument(
        "benchmark",
        choices=(*get_args(Benchmark), "images"),
        help="what is predicted: any text, answers of tools, pages, images",
    )
    parser.add_argument("file", type=Path, help="predictions, JSON lines; of images, paths relative to the file")
    parser.add_argument("--out", type=Path, help="JSON file to write (default: beside FILE, ending in .scores.json)")
    named = "field to column where names differ, e.g. {prediction: output, reference: gold.text}"
    parser.add_argument("--columns", type=Columns | None, help=named)
    parser.add_argument("--bert_score", type=Path, help="folder with an encoder for BERTScore, e.g. of roberta-large")
    parser.add_argument("--bert_layer", type=int, help="its hidden layer (17 of roberta-large; default: the last)")
    parser.add_argument("--clip", type=Path, help="images: folder with a CLIP model, e.g. of openai/clip-vit-base-patch32")
    judge = "images: a judge behind an OpenAI-compatible URL, with --judge.base_url, --judge.model and --judge.cache"
    parser.add_argument("--judge", type=Judge | None, default=None, help=judge)
    parsed = parser.parse_args(list(argv))
    values = parser.instantiate(parsed)
    out = values.out or values.file.with_suffix(".scores.json")
    if values.benchmark == "images":
        from swirl_lightning.commands.score_images import score_images  # brings transformers with it

        print(score_images(values.file, out, values.clip, values.judge, values.columns))
    else:
        print(score(values.benchmark, values.file, out, values.bert_score, values.bert_layer, values.columns))
    print(f"written to {out}")
    return 0

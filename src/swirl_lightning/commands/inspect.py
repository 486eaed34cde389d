"""``swirl inspect``: what the models will see, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

from swirl_lightning.codecs import ImageCodec, load_codec
from swirl_lightning.codecs.image_pixels import to_png
from swirl_lightning.commands.inspect_text import as_text
from swirl_lightning.commands.loading import run_parser
from swirl_lightning.commands.options import Columns, named_as
from swirl_lightning.commands.parsing import Parser
from swirl_lightning.commands.prompted import Prompted, fitting, percentiles
from swirl_lightning.data.guess import guess
from swirl_lightning.data.reader import TransitionTable, read_mapped
from swirl_lightning.data.reading import Mapping as RowMapping
from swirl_lightning.data.reading import Reading
from swirl_lightning.data.sources import items
from swirl_lightning.data.splits import roles
from swirl_lightning.data.survey import Rows, spread, survey, taken
from swirl_lightning.evaluation.pictures import grid
from swirl_lightning.types import Role, SamplingParams, Transition
from swirl_lightning.world_model.new import NewModel
from swirl_lightning.world_model.prompts import PromptBuilder, PromptTemplates

EXAMPLES, MEASURED, MEASURED_IMAGES, PICTURES = 3, 250, 16, 8
STREAMED = 10_000  # pairs of a stream that are looked at
_PROTOCOL = {"labelled": 0.5, "val": 0.1, "test": 0.2}  # as `swirl fit` splits without being told


def findings(splits: Mapping[str, Rows], prompted: Prompted, rows: int | None, pictures: Path) -> dict[str, Any]:
    """What is found out about the splits of some data.

    Args:
        splits: Labelled, state_only, val and test.
        prompted: How the models will be asked.
        rows: Most transitions of a split that are looked at.
        pictures: PNG file to write, where states are images.

    Returns:
        Values for JSON.
    """
    seen = survey(splits, rows)
    measured = [
        row
        for name, split in splits.items()
        for row in taken(
            split, sorted({*spread(len(split), MEASURED_IMAGES if seen.images else MEASURED), *seen.splits[name].longest})
        )
    ]
    if prompted.codec is not None and seen.images != isinstance(prompted.codec, ImageCodec):
        raise ValueError(
            "states are images, but the tokenizer's folder has no codec.json: name a model that speaks images"
            if seen.images
            else "states are text, but the model speaks images"
        )
    lengths = prompted.lengths(measured)
    shown = [split for split in (splits.get("labelled", ()), splits.get("state_only", ()), *splits.values()) if len(split)]
    made: dict[str, Any] = {
        "splits": {name: asdict(one) for name, one in seen.splits.items()},
        "labelled_share": seen.labelled,
        "actions": {"distinct": len(seen.actions), "of": seen.actions.total(), "most": seen.actions.most_common(5)},
        "ambiguity": {"idm": seen.idm and asdict(seen.idm), "fwm": seen.fwm and asdict(seen.fwm)},
        "test_seen_in_training": seen.seen_in_training,
        "lengths": {
            "unit": prompted.unit,
            "of": len(measured),
            **{role: {what: percentiles(values) for what, values in of.items()} for role, of in lengths.items()},
        },
        "fits": fitting(lengths),
        "set": {"max_prompt_tokens": prompted.max_prompt_tokens}
        | {f"{role.value}.sampling.max_new_tokens": longest for role, longest in prompted.max_new_tokens.items()},
        "examples": [],
    }
    for role in Role:
        for at in np.linspace(0, len(shown[0]) - 1, min(EXAMPLES, len(shown[0]))).astype(int) if shown else ():
            if (example := prompted.example(role, shown[0][int(at)])) is not None:
                made["examples"].append(asdict(example))
    if seen.images:
        made["pictures"] = str(_pictures(shown[0], pictures))
    return made


def _pictures(rows: Rows, file: Path) -> Path:
    """States beside their next states, as a PNG file."""
    cells = []
    for at in spread(len(rows), PICTURES):
        row = rows[at]
        assert isinstance(row.state, bytes)
        assert isinstance(row.next_state, bytes)
        action = row.action if isinstance(row, Transition) else "next state"
        cells.append([(row.state, f"{row.episode} {row.step}"), (row.next_state, action)])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(to_png(grid(cells)))
    return file


# ---------------------------------------------------------------------- a file


def inspect_file(options: Any) -> dict[str, Any]:
    """Reads a file, with a guess at its mapping where none is given.

    Args:
        options: Options of the command.
    """
    columns, labelled, guessed = options.columns, True, False
    if columns is None:
        found = guess(Reading(RowMapping()).reader(items(options.file)[0][0]))
        guessed, columns = found is not None, {} if found is None else found.columns
        labelled = found is None or found.labelled
    mapping = RowMapping(columns, action_pattern=options.action_pattern)
    table = read_mapped(options.file, mapping, limit=options.rows)
    splits, notes = _as_fit_splits(table), [str(table.report)] if str(table.report) else []
    if options.state_only is not None:
        only = (
            {k: v for k, v in columns.items() if k != "action"}
            if options.state_only_columns is None
            else options.state_only_columns
        )
        more = read_mapped(options.state_only, RowMapping(only, actions=False), limit=options.rows)
        splits["state_only"] = more.pairs()
        notes += [f"{more.source}: {more.report}"] if str(more.report) else []
    codec = None if options.tokenizer is None else load_codec(options.tokenizer)
    sampling = dict.fromkeys(Role, SamplingParams().max_new_tokens)
    prompted = Prompted(codec, PromptTemplates(), PromptBuilder.max_prompt_tokens, sampling)
    made = {"source": table.source, "columns": columns, "guessed": guessed, "yaml": _as_yaml(options, columns, labelled)}
    made |= {"notes": notes, "sampled": options.rows is not None and len(table) >= options.rows}
    return made | findings(splits, prompted, options.rows, options.pictures)


def _as_fit_splits(table: TransitionTable) -> dict[str, Rows]:
    """As ``swirl fit`` splits by default; state-only data have no splits."""
    codes, names = table.codes("episode")
    if table.table.column("action").null_count == len(table):
        return {"state_only": table.pairs()}
    rows, _ = roles(table, codes, names, fractions=_PROTOCOL, seed=0)
    splits: dict[str, Rows] = {name: table.transitions(rows[name]) for name in ("labelled", "val", "test")}
    return {"labelled": splits.pop("labelled"), "state_only": table.pairs(rows["unlabelled"]), **splits}


def _as_yaml(options: Any, columns: Columns, labelled: bool) -> str:
    """What to paste into a configuration."""
    path = options.file[0] if isinstance(options.file, list) and len(options.file) == 1 else options.file
    settings: dict[str, Any] = {"path": path, **({"columns": columns} if columns else {})}
    if not labelled:
        settings = {"path": "YOUR_LABELLED_FILE", "state_only": path, **({"state_only_columns": columns} if columns else {})}
    elif options.state_only is not None:
        settings |= {"state_only": options.state_only}
        settings |= {} if options.state_only_columns is None else {"state_only_columns": options.state_only_columns}
    settings |= {} if options.action_pattern is None else {"action_pattern": options.action_pattern}
    block = {"data": {"class_path": "swirl_lightning.data.TransitionDataModule", "init_args": settings}}
    return yaml.safe_dump(block, sort_keys=False, allow_unicode=True, width=120)


# ---------------------------------------------------------------------- a run


def inspect_run(values: Any) -> dict[str, Any]:
    """Splits and prompts as ``swirl fit`` would make them of the same YAML.

    Args:
        values: With ``model`` and ``data`` made.
    """
    model, data = values.model, values.data
    data.prepare_data()
    data.setup("inspect")  # a stage that refuses no empty split; `fit` would:
    notes = []
    try:
        data.connect(model)
    except ValueError as error:
        notes.append(f"`swirl fit` will refuse this: {error}")
    state_only = data.first_state_only(STREAMED)
    if data.stream_batches is not None:
        notes.append(f"data.stream_batches: state_only are the first {len(state_only):,} pairs of the stream")
    splits = {"labelled": data.labelled, "state_only": state_only, "val": data.val, "test": data.test}
    if isinstance(new := model.world_model_config.base, NewModel):
        with TemporaryDirectory() as folder:
            new.make([*data.labelled, *data.unlabelled], Path(folder))
            model.take_base(folder)
    wordings = [wording for role in Role for wording in model.prompts.templates.of(role)]
    if any(row.context for row in taken(data.labelled, spread(len(data.labelled), 100))) and "{context}" not in "".join(
        wordings
    ):
        notes.append("the transitions have a context, but no wording of model.prompts has the slot {context}: no model sees it")
    sampling = {role: settings.sampling.max_new_tokens for role, settings in model.roles.items()}
    prompted = Prompted(model.codec, model.prompts.templates, model.prompts.max_prompt_tokens, sampling)
    return {"source": str(data.path), "notes": notes} | findings(splits, prompted, values.rows, values.pictures)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    arguments, about = list(argv), "What the models will see, before anything is trained."
    by_config = any(argument.partition("=")[0] == "--config" for argument in arguments)
    parser = (run_parser if by_config else Parser)(prog="swirl inspect", description=about)
    if not by_config:
        parser.usage = "swirl inspect FILE [options], or swirl inspect --config YAML_OF_FIT [options of fit]"
        parser.add_argument(
            "file", type=str | list[str], help="data, as data.path of `swirl fit`: a file, glob, folder, hub:..."
        )
        parser.add_argument("--columns", type=Columns | None, help="field to column; default: guessed, and printed")
        parser.add_argument("--state_only", type=str | list[str] | None, help="state-only data beside it, as data.state_only")
        parser.add_argument("--state_only_columns", type=Columns | None, help="default: those of FILE")
        parser.add_argument("--action_pattern", type=str | None, help="regular expression with one group: the action")
        parser.add_argument("--tokenizer", type=str | None, help="model folder or hub name: lengths in its tokens")
    parser.add_argument("--rows", type=int | None, default=100_000, help="most rows that are looked at; null for all")
    parser.add_argument("--pictures", type=Path, default=Path("inspect.png"), help="PNG file to write, where states are images")
    parser.add_argument("--json", action="store_true", help="print JSON")
    values = parser.parse_args(arguments)
    if by_config:
        made = inspect_run(parser.instantiate_classes(values))
    else:
        with named_as(path="FILE", state_only="--state_only"):
            made = inspect_file(values)
    print(json.dumps(made, ensure_ascii=False, indent=2) if values.json else as_text(made))
    return 0

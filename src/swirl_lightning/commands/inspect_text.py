"""What ``swirl inspect`` found, to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import indent
from typing import Any

_LONGEST = 1500  # characters of a prompt that are printed
_TOKENS = 60
_TITLES = {"labelled": "labelled", "state_only": "state-only", "val": "validation", "test": "test"}


def as_text(made: Mapping[str, Any]) -> str:
    """The findings as plain text.

    Args:
        made: As :func:`swirl_lightning.commands.inspect.findings` makes them.
    """
    parts = [_splits(made), _actions(made), _lengths(made), *_examples(made)]
    if "yaml" in made:
        title = "This is a guess at the columns" if made["guessed"] else "These are the columns"
        parts.insert(0, f"{title} of {made['source']}; paste it into the YAML of `swirl fit`:\n\n" + indent(made["yaml"], "  "))
    if made["notes"]:
        parts.insert(1 if "yaml" in made else 0, "To know\n" + indent("\n".join(made["notes"]), "  "))
    if "pictures" in made:
        parts.append(f"States and next states as pictures: {made['pictures']}")
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as what is in them, the first to the left."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )


def _splits(made: Mapping[str, Any]) -> str:
    head = ["", "transitions", "episodes", "no-ops", "repeats", "stays as it is"]
    rows, sampled = [], made.get("sampled", False)
    for name, one in made["splits"].items():
        shares = (one["no_ops"], one["repeats"], one["unchanged"])
        rows.append([_TITLES[name], f"{one['transitions']:,}", f"{one['episodes']:,}", *map(_share, shares)])
        sampled = sampled or one["looked_at"] < one["transitions"]
    text = "Splits\n" + _table(head, rows)
    if sampled:
        most = max(one["looked_at"] for one in made["splits"].values())
        text += f"\n  This is about a part of the data (at most {most:,} rows of a split): --rows null looks at all of it."
    copied = [one["no_ops"] for name, one in made["splits"].items() if name == "test" and one["transitions"]]
    if copied:
        text += (
            f"\n  Copying the state is right on {_share(copied[0])} of the test transitions: an FWM must be better than that."
        )
    if made["test_seen_in_training"]:
        seen = _share(made["test_seen_in_training"])
        text += f"\n  {seen} of the test transitions (context, state, next state) are in training as well, in other episodes."
    return text


def _actions(made: Mapping[str, Any]) -> str:
    actions = made["actions"]
    if not actions["of"]:
        return "Actions\n  There are none: the models need some labelled transitions as well (data.path)."
    known = f"{_share(made['labelled_share'])} of the transitions have an action"
    lines = [f"  {known}; {actions['distinct']:,} distinct ones, most often:"]
    lines += [f"    {count:>7,}  {action[:100]!r}" for action, count in actions["most"]]
    for role, given, answer in (
        ("idm", "state and next state", "actions"),
        ("fwm", "state and action", "next states"),
    ):
        one = made["ambiguity"][role]
        lines.append(
            f"  {_share(one['ambiguous'])} of them have a {given} that also occurs with other {answer}: "
            f"no {role.upper()} can be right on more than {_share(one['ceiling'])}.\n"
            f"    {_share(one['seen_again'])} of them are seen more than once; the others count as told apart."
        )
    return "Actions\n" + "\n".join(lines)


def _lengths(made: Mapping[str, Any]) -> str:
    lengths, rows = made["lengths"], []
    for role in ("fwm", "idm"):
        for what in ("prompt", "answer"):
            if (values := lengths[role][what]) is not None:
                rows.append([f"{role.upper()} {what}", *(f"{value:,}" for value in values.values())])
    if not rows:
        return ""
    counted = f"of {lengths['of']:,} transitions, the longest among them"
    text = f"Lengths in {lengths['unit']}, {counted}\n" + _table(["", "half", "90 %", "99 %", "longest"], rows)
    if lengths["unit"] == "characters":
        text += "\n  No tokenizer is known, so these are characters: --tokenizer MODEL (or --config) counts tokens."
        return text + "\n  Nothing is cut with, in characters\n" + "\n".join(f"    {n}: {v}" for n, v in made["fits"].items())
    lines = []
    for name, value in made["fits"].items():
        now = made["set"][name]
        lines.append(f"    {name}: {value}   # now {now}" + (": longer ones are cut" if now < value else ""))
    return text + "\n  Nothing is cut with\n" + "\n".join(lines)


def _examples(made: Mapping[str, Any]) -> Iterator[str]:
    for one in made["examples"]:
        asked = f"{one['role'].upper()}, episode {one['episode']!r}, step {one['step']}"
        cut = f", {one['cut']:,} tokens cut out of the middle of states and context" if one["cut"] else ""
        sized = f" ({len(one['prompt_tokens']):,} tokens{cut})" if one["prompt_tokens"] is not None else ""
        lines = [f"{asked}\n  prompt{sized}:", indent(_short(one["prompt"]), "    | ", lambda _: True)]
        if one["prompt_tokens"] is not None:
            lines.append(f"    = {_tokens(one['prompt_tokens'])}")
        if one["answer"] is None:
            lines.append("  answer: not in the data (state-only)")
        else:
            tokens = one["answer_tokens"]
            over = f", the last {one['answer_cut']:,} beyond max_new_tokens" if one["answer_cut"] else ""
            lines.append("  answer" + (f" ({len(tokens):,} tokens{over})" if tokens is not None else "") + ":")
            lines.append(indent(_short(one["answer"]), "    | ", lambda _: True))
            lines += [f"    = {_tokens(tokens)}"] if tokens is not None else []
        yield "\n".join(lines)


def _short(text: str) -> str:
    left = len(text) - _LONGEST
    return text if left <= 0 else f"{text[: _LONGEST // 2]} [{left:,} characters not shown] {text[-_LONGEST // 2 :]}"


def _tokens(tokens: Sequence[str]) -> str:
    """Tokens between bars, of long texts those at both ends."""
    shown = [token.encode("unicode_escape").decode() if token.isascii() else token for token in tokens]
    if len(shown) > _TOKENS:
        half = _TOKENS // 2
        shown = [*shown[:half], f"[{len(shown) - 2 * half:,} more]", *shown[-half:]]
    return "|".join(shown)

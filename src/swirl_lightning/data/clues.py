"""What columns of a file look like: their names' words, what they hold, and how they hang together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from swirl_lightning.data.columns import Along

# Words of the fields' likely names, the likelier first.
NAMES = {
    field: words.split()
    for field, words in {
        "state": "state observation obs html dom page axtree screen screenshot image img frame board scene view snapshot "
        "description text caption content world s o x",
        "action": "action act command cmd operation op tool_call call move control instruction edit prompt event label a z u",
        "episode": "episode ep trajectory traj rollout run session video game conversation dialog demo clip sequence "
        "transcript annotation uid id task scene variation seed trial",
        "step": "step t timestep frame turn time index idx position order i n",
        "done": "done terminal terminated truncated timeout last end",
        "split": "split subset partition fold",
        "context": "context goal task instruction mission objective system api_doc intent query question utterance",
        "place": "task game env environment scene level world user website map room house problem question",
        "counter": "run rollout variation seed trial episode ep",  # may begin anew in every place
        "before": "before prev previous pre old current curr cur source src initial input start from original x t",
        "after": "after next post new target tgt result output final end to following prime edited y tp",
        "beside": "id uid index idx type mask space log prob logprob time count reward url",  # the point
    }.items()
}
_SHORT = 60  # characters: what is longer names no episode


class Column:
    """A path into the first rows, and what it leads to: a value a row, or a list of values, one a step."""

    def __init__(self, path: str, values: list[Any]) -> None:
        first = next((value for value in values if value is not None), None)
        if isinstance(first, str) and first.startswith("[{"):  # a chat as JSON text?
            values = [_parsed(value) for value in values]
            first = next((value for value in values if value is not None), None)
        self.path, self.values = path, values
        self.listed = isinstance(first, Along) or (isinstance(first, list) and not _all_numbers(first))
        flat = [one for value in values for one in ((value or ()) if self.listed and isinstance(value, list) else [value])]
        self.single = [one for one in flat if one is not None]

    @cached_property
    def words(self) -> list[set[str]]:
        """Words of the path's parts, the last part first; plurals as singulars."""
        parts = [re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", part) for part in reversed(self.path.split("."))]
        return [{_singular(word.lower()) for word in words} | {_singular("_".join(words).lower())} for words in parts]

    @cached_property
    def kind(self) -> str:
        """What a value is: nothing, chat, object, image, name (a short text without spaces), text, flag, number or vector."""
        first = self.single[0] if self.single else None
        if isinstance(first, dict):
            if {"role", "from"} & set(first) and {"content", "value", "text", "tool_calls"} & set(first):
                return "chat"
            return "image" if {"bytes", "path"} == set(first) else "other" if _holds_bytes(first) else "object"
        if isinstance(first, str):
            texts = [one for one in self.single if isinstance(one, str)]
            short = max(map(len, texts)) <= _SHORT
            return "name" if short and sum(" " in one.strip() for one in texts) * 2 < len(texts) else "text"
        kinds = {type(None): "nothing", bytes: "image", bool: "flag", int: "number", float: "number", list: "vector"}
        return kinds.get(type(first), "other")

    def rank(self, names: Sequence[str], *, outer: bool = False) -> float | None:
        """How likely the path is by its name, 0 the likeliest; None where no word of it is among the names.

        Args:
            names: the likely words.
            outer: look at the whole path, not at its last part alone.
        """
        ranks = []
        for distance, words in enumerate(self.words if outer else self.words[:1]):
            found = [place for place, name in enumerate(names) if name in words]
            if found:
                whole = len(words) == 1
                beside = outer and not whole and bool(words & set(NAMES["beside"]))
                ranks.append(found[0] + 50 * distance + 50 * beside - whole / 2)
        return min(ranks, default=None)

    def integers(self) -> list[int] | None:
        """A whole number a row, None where that is not so."""
        if all(isinstance(one, int) and not isinstance(one, bool) for one in self.values):
            return list(self.values)
        texts = all(isinstance(one, str) and re.fullmatch(r"-?\d+", one) for one in self.values)
        return [int(one) for one in self.values] if texts else None


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _all_numbers(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)


def _holds_bytes(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, bytes) or any(map(_holds_bytes, inner))


def likely_episode(one: Column) -> float | None:
    """Place of a column among the likely names of episodes."""
    if one.kind == "number" and one.integers() is None:
        return None
    words = one.words[0] - {"id", "uid", "index", "idx"} or one.words[0]
    places = [place for place, name in enumerate([*NAMES["episode"], *NAMES["place"]]) if name in words]
    return min(places, default=None)


def pair_score(one: Column, other: Column) -> float:
    """How likely two columns are a state and its next state; 2 is enough."""
    if one.kind != other.kind or one.listed != other.listed or one.path.count(".") != other.path.count("."):
        return 0.0
    mine, its = ({word for word in column.words[0] if "_" not in word} for column in (one, other))
    before, after = mine & set(NAMES["before"]), its & set(NAMES["after"])
    named = bool(after and not mine & set(NAMES["after"]) and mine - before == its - after and (before or mine))
    counted = any(a.isdigit() and b.isdigit() and int(b) == int(a) + 1 for a in mine - its for b in its - mine)
    named = named or (counted and {word for word in mine ^ its if not word.isdigit()} == set())
    known = one.rank(NAMES["state"]) is not None
    return 2.0 * named + 3.0 * chained(one, other) + 0.5 * (known or bool(before & {"before", "prev", "previous"}))


def chained(one: Column, other: Column) -> float:
    """Share of next states that are the state of the step after."""
    if one.listed:
        rows = [(a, b) for a, b in zip(one.values, other.values, strict=True) if a and b and len(a) == len(b)]
        linked = [after == state for states, afters in rows for after, state in zip(afters, states[1:], strict=False)]
    else:
        linked = [after == state for after, state in zip(other.values, one.values[1:], strict=False)]
    changed = any(a != b for a, b in zip(one.single, other.single, strict=False))  # a column that never changes is chained, too
    return sum(linked) / len(linked) if linked and changed and len(set(map(str, one.single[:50]))) > 1 else 0.0


def mean_length(one: Column) -> float:
    """Mean length of the values: characters, bytes."""
    return sum(len(value) if isinstance(value, str | bytes) else 1 for value in one.single) / max(len(one.single), 1)


def changes(one: Column) -> bool:
    """Whether a value mostly differs from the one before it."""
    values = one.single
    return len(values) < 2 or sum(a != b for a, b in pairwise(values)) * 2 >= len(values) - 1


def goes_up(numbers: list[int] | None) -> bool:
    """Whether numbers count one up from row to row, but where an episode ends."""
    return numbers is not None and (len(numbers) < 2 or sum(b == a + 1 for a, b in pairwise(numbers)) * 2 > len(numbers) - 1)


def stays(one: Column, ends: list[int] | None) -> bool:
    """Whether a column is the same from row to row within an episode."""
    if ends is None:
        return len(one.values) < 2 or len(set(one.values)) < len(one.values)
    ended = set(ends)
    return all(a == b for row, (a, b) in enumerate(pairwise(one.values)) if row not in ended)


def differ(columns: Sequence[Column], row: int) -> bool:
    """Whether one of the columns changes after a row."""
    return any(one.values[row] != one.values[row + 1] for one in columns)


def unique(columns: Sequence[Column]) -> bool:
    """Whether no two rows agree in all of the columns."""
    rows = list(zip(*(one.values for one in columns), strict=True))
    return len(set(rows)) == len(rows) and all(None not in row for row in rows)

"""A guess at the mapping of a file that nobody has described: by the names of its columns, and by what they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from swirl_lightning.data.clues import (
    NAMES,
    Column,
    changes,
    differ,
    goes_up,
    likely_episode,
    mean_length,
    pair_score,
    stays,
    unique,
)
from swirl_lightning.data.columns import DataError, lookup, paths_of
from swirl_lightning.data.formats import Reader
from swirl_lightning.data.schema import SPLITS

_ROWS, _PATHS = 200, 1000  # that are looked at
_STATE_KINDS = ("text", "name", "object", "image", "vector")


@dataclass(frozen=True)
class Guess:
    """A likely mapping.

    Attributes:
        columns: for ``data.columns``; only what differs from the fields' own names.
        labelled: whether there are actions.
    """

    columns: dict[str, str | list[str] | None]
    labelled: bool


def guess(reader: Reader) -> Guess | None:
    """Which columns hold the fields.

    Args:
        reader: of one file or data set.

    Returns:
        The mapping; None where nothing looks like a state.

    Raises:
        DataError: if the file cannot be read.
    """
    names, records = reader.head()
    if (block := next(reader.blocks(names[:_PATHS], None), None)) is not None:
        records = block.records[:_ROWS] if block.objects is not None else block.table.slice(0, _ROWS).to_pylist()
    columns = {}
    for path in paths_of(names[:_PATHS], records)[:_PATHS]:
        try:
            columns[path] = Column(path, [lookup(record, path) for record in records])
        except DataError:  # lists of lists: no field lies there
            continue
    return _Guesser(set(names), columns).guess()


class _Guesser:
    """Gives the fields their columns, one after another; a column serves one field.

    Args:
        names: of the columns themselves.
        columns: by path, those inside objects and lists as well.
    """

    def __init__(self, names: set[str], columns: dict[str, Column]) -> None:
        self.names, self.columns = names, columns
        self.found: dict[str, list[Column]] = {}

    def guess(self) -> Guess | None:
        chat = next((one for one in self.columns.values() if one.kind == "chat" and one.listed), None)
        if chat is not None:
            self.columns = {path: one for path, one in self.columns.items() if not path.startswith(f"{chat.path}.")}
        if not self._states(named=chat is not None):
            if chat is None:
                return None
            self.found["messages"] = [chat]
        rows = not self._shown.listed  # a row is a pair or a step, not a trajectory
        if chat is None or "messages" not in self.found:
            self._take("action", lambda one: self._beside(one) and one.kind not in ("nothing", "image", "flag", "chat"))
            if "action" not in self.found:
                self._unnamed_action()
            self._take(
                "step",
                lambda one: self._beside(one) and one.kind in ("number", "name") and (not rows or goes_up(one.integers())),
            )
        if rows:
            self._episode_of_rows()
        else:
            self._episode_of_lists()
        if "messages" not in self.found and "next_state" not in self.found:
            self._take("done", lambda one: self._beside(one) and one.kind == "flag")
        self._take("split", lambda one: not one.listed and {str(v) for v in one.single} <= {*SPLITS, "dev", "validation"})
        self._take("context", lambda one: one.kind == "text" and (not one.listed or self._beside(one)))
        return Guess(self._mapping(rows), "action" in self.found or "messages" in self.found)

    @property
    def _shown(self) -> Column:
        """A column of states."""
        return next(self.found[field][0] for field in ("state", "next_state", "messages") if field in self.found)

    def _mapping(self, rows: bool) -> dict[str, str | list[str] | None]:
        columns: dict[str, str | list[str] | None] = {}
        for field, found in self.found.items():
            paths = [one.path for one in found]
            if paths != [field] or field == "messages":
                columns[field] = paths[0] if len(paths) == 1 else paths
        if rows and "episode" not in self.found:
            columns["episode"] = None
        unused = [] if "messages" in self.found else ["state", "next_state", "action", "context", "step", "done"]
        for field in (*unused, "episode", "split"):  # would be read by their names
            if field not in self.found and field in self.names and self.columns[field].single:
                columns[field] = None
        if "state" not in self.found and "next_state" in self.found:
            columns["state"] = None
        return columns

    def _take(self, field: str, fits: Callable[[Column], bool]) -> None:
        """Gives a field the likeliest column that fits and is not taken yet."""
        free = [(one.rank(NAMES[field], outer=field == "action"), one) for one in self._free()]
        ranked = [(rank, one) for rank, one in free if rank is not None and one.single and fits(one)]
        if ranked:
            self.found[field] = [min(ranked, key=lambda pair: pair[0])[1]]

    def _free(self) -> list[Column]:
        taken = [one.path for found in self.found.values() for one in found]
        return [
            one
            for path, one in self.columns.items()
            if not any(path == t or path.startswith(f"{t}.") or t.startswith(f"{path}.") for t in taken)
        ]

    def _beside(self, one: Column) -> bool:
        """Whether a column has a value for every state, or one less."""
        state = self._shown
        if one.listed != state.listed:
            return False
        if not one.listed:
            return True
        lists = [(a, b) for a, b in zip(one.values, state.values, strict=True) if isinstance(a, list) and isinstance(b, list)]
        return all(len(mine) in (len(states), len(states) - 1) for mine, states in lists)

    # ------------------------------------------------------------------ states and actions

    def _states(self, *, named: bool) -> bool:
        """Finds a column of states, or one of states and one of next states; whether there is any.

        Args:
            named: only under a likely name.
        """
        likely = [one for one in self.columns.values() if one.kind in _STATE_KINDS and not self._inside_action(one)]
        scored = [
            (score, one, other)
            for one in likely
            for other in likely
            if one is not other and (score := pair_score(one, other)) >= 2
        ]
        if scored and not named:
            _, one, other = max(scored, key=lambda triple: triple[0])
            self.found = {"state": [one], "next_state": [other]}
            return True
        ranked = [
            (rank + 30 * (one.kind == "vector"), one.kind == "name", one.path.count("."), place, one)
            for place, one in enumerate(likely)
            if (rank := one.rank(NAMES["state"], outer=True)) is not None
            and (one.kind != "vector" or {"state", "observation", "obs"} & one.words[0])
        ]
        if ranked:
            best = min(ranked)[-1]
            self.found["next_state" if "next" in best.words[0] else "state"] = [best]
        elif not named and (texts := [one for one in likely if one.kind in ("text", "image")]):
            self.found["state"] = [max(texts, key=mean_length)]
        return bool(self.found)

    def _inside_action(self, one: Column) -> bool:
        """Whether a path is an action's, or leads into an object that is one."""
        parts = one.path.split(".")
        outer = [self.columns[path] for n in range(1, len(parts) + 1) if (path := ".".join(parts[:n])) in self.columns]
        steps = [column for column in outer if column is not one and column.listed and column.kind == "object"]
        return any(column.rank(NAMES["action"][:9]) is not None for column in outer if column not in steps[:1])

    def _unnamed_action(self) -> None:
        """Short text beside the states that changes with them, where there is only one such column."""
        short = [
            one
            for one in self._free()
            if one.kind in ("text", "name") and self._beside(one) and mean_length(one) < mean_length(self._shown)
            if changes(one) and all(one.rank(NAMES[field]) is None for field in ("episode", "step", "done", "split", "context"))
        ]
        if len(short) == 1 and "state" in self.found:
            self.found["action"] = short

    # ------------------------------------------------------------------ episodes

    def _episode_of_rows(self) -> None:
        """Columns that stay as they are within an episode and tell it from the next one."""
        ends = self._ends()
        able = [
            one for one in self._free() if not one.listed and one.kind in ("name", "number", "text") and one.integers() != []
        ]
        able = [one for one in able if len(one.single) == len(one.values) and one.kind != "text"]
        named = [(rank, one) for one in able if (rank := likely_episode(one)) is not None and stays(one, ends)]
        chosen: list[Column] = []
        for _, one in sorted(named, key=lambda pair: pair[0]):
            if not chosen or not all(differ(chosen, row) for row in ends or ()):
                chosen.append(one)
        if len(chosen) == 1 and chosen[0].words[0] & set(NAMES["counter"]) and "index" not in chosen[0].words[0]:
            chosen += [one for _, one in named if one is not chosen[0] and one.words[0] & set(NAMES["place"])][:1]
        if chosen:
            order = list(self.columns)
            self.found["episode"] = sorted(
                chosen, key=lambda one: (not one.words[0] & set(NAMES["place"]), order.index(one.path))
            )

    def _ends(self) -> list[int] | None:
        """Rows after which an episode ends, as far as steps and states tell; None where they do not."""
        if "step" in self.found:
            steps = self.found["step"][0].integers() or []
            return [row for row, (one, other) in enumerate(pairwise(steps)) if other != one + 1]
        if "state" in self.found and "next_state" in self.found:
            state, after = self.found["state"][0].values, self.found["next_state"][0].values
            ends = [row for row in range(len(state) - 1) if after[row] != state[row + 1]]
            return ends if len(ends) * 2 < len(state) else None
        return None

    def _episode_of_lists(self) -> None:
        """Columns that are another in every row."""
        able = [one for one in self._free() if not one.listed and one.kind in ("name", "number", "text")]
        named = sorted((rank, one.path) for one in able if (rank := likely_episode(one)) is not None)
        chosen: list[Column] = []
        for _, path in named:
            if not chosen or not unique(chosen):
                chosen.append(self.columns[path])
        if chosen and unique(chosen):
            self.found["episode"] = sorted(chosen, key=lambda one: list(self.columns).index(one.path))

"""Transitions as lazy sequences over Arrow columns: a row becomes a Python object when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from typing_extensions import override

from swirl_lightning.types import Transition, UnlabelledPair

RowT = TypeVar("RowT", Transition, UnlabelledPair)

PAIR_FIELDS = ("state", "next_state", "context", "episode", "step")
_ROWS_AT_ONCE = 1024


class Rows(Sequence[RowT]):
    """Rows of an Arrow table as :class:`Transition` or :class:`UnlabelledPair`.

    Rows of pairs keep no action column, so that nothing reached through them can name an action (design, invariant 4).

    Args:
        kind: what a row becomes.
        table: canonical columns (``pyarrow.Table``).
        indices: which rows of the table, in this order; None for all.
    """

    def __init__(self, kind: type[RowT], table: Any, indices: Sequence[int] | None = None) -> None:
        fields = PAIR_FIELDS if kind is UnlabelledPair else (*PAIR_FIELDS, "action")
        self._kind: type[RowT] = kind
        self._fields, self._table = fields, table.select(list(fields))
        self._batches = self._table.to_batches()
        self._begins = np.cumsum([0, *(batch.num_rows for batch in self._batches)])[:-1]
        self._indices: Sequence[int] = range(table.num_rows) if indices is None else indices

    @override
    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> RowT: ...

    @overload
    def __getitem__(self, index: slice) -> Rows[RowT]: ...

    @override
    def __getitem__(self, index: int | slice) -> RowT | Rows[RowT]:
        if isinstance(index, slice):
            return Rows(self._kind, self._table, self._indices[index])
        return self.take([index])[0]

    @override
    def __iter__(self) -> Iterator[RowT]:
        for begin in range(0, len(self), _ROWS_AT_ONCE):
            yield from self.take(range(begin, min(begin + _ROWS_AT_ONCE, len(self))))

    def take(self, positions: Sequence[int]) -> list[RowT]:
        """Several rows at once.

        Args:
            positions: positions in this sequence.

        Returns:
            The rows, in the order of ``positions``.

        Raises:
            IndexError: if a position lies outside.
        """
        rows = [int(self._indices[position]) for position in positions]
        batches = np.searchsorted(self._begins, rows, side="right") - 1
        return [self._row(int(batch), row) for batch, row in zip(batches, rows, strict=True)]

    def _row(self, batch: int, row: int) -> RowT:
        """One row; ``Table.take`` would copy whole columns together first, where they came in parts."""
        columns, at = self._batches[batch].columns, row - int(self._begins[batch])
        return self._kind(**{name: column[at].as_py() for name, column in zip(self._fields, columns, strict=True)})

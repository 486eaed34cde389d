"""What reading found, counted: nothing is left out without a word."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """Counts of a reading, and which columns were not text.

    Attributes:
        counts: what was found or left out, in words, and how often.
        as_json: columns that became JSON text, and what they held.
    """

    counts: Counter[str] = field(default_factory=Counter)
    as_json: dict[str, str] = field(default_factory=dict)

    def json_text(self, column: str, kind: str) -> None:
        """Notes that a column's values were written as JSON text."""
        self.as_json.setdefault(column, kind)

    def __str__(self) -> str:
        notes = [f"{count:,} {what}" for what, count in self.counts.items() if count]
        notes += [f"column {name!r} ({kind}s) is read as JSON text" for name, kind in self.as_json.items()]
        return "; ".join(notes)

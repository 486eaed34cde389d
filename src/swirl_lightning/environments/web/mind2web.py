"""Mind2Web (arXiv:2306.06070): the released JSON files, read one task at a time.

A state is the page (``cleaned_html``) on which somebody acted, the next state the page of the following action; the last
action of a task has none. Pages are cut around the element that was acted on, since most exceed any prompt. So the place of the
cut tells where on the page the action was, to both roles and in both pages; what the action was it does not tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from swirl_lightning.data.columns import DataError
from swirl_lightning.environments.datamodule import WorldDataModule
from swirl_lightning.environments.recording.json_list import elements
from swirl_lightning.types import Transition

CUT = "<!-- cut -->"
_PIECE = re.compile(r"<[^>]*>|[^<]+|<")
_TOKEN = re.compile(r"\w+|[^\w\s]")
NODE_ID = re.compile(r'\s*\bbackend_node_id="[^"]*"')
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u2028\u2029\ud800-\udfff]")
_SPACE = re.compile(r"\s+")
_LONGEST = 32  # characters of a token, at most, when a page is searched for its neighbourhood


@dataclass
class Mind2WebRecorder:
    """Makes transitions of Mind2Web's released files. Nothing is downloaded.

    Attributes:
        train: Files, folders or globs of the training tasks.
        test: Name of a test split to its files, e.g. ``{test_task: data/test_task}``; the name begins its episodes' names.
        page_tokens: Tokens (words and punctuation marks) of a page that are kept around the acted-on element.
        no_element: Actions that point at no element of their page: ``drop``, or ``keep`` with the beginning of the page.
    """

    train: str = "data/released/mind2web/train"
    test: dict[str, str] = field(default_factory=dict)
    page_tokens: int = 1500
    no_element: Literal["drop", "keep"] = "keep"
    counts: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: naming the option.
        """
        if self.page_tokens < 8:
            raise ValueError(f"mind2web: page_tokens must be at least 8, got {self.page_tokens}")
        if bad := [name for name in self.test if "/" in name or name == "train"]:
            raise ValueError(f"mind2web: test: {bad[0]!r} cannot name a split")

    def _files(self) -> Iterator[tuple[str, Path]]:
        for split, pattern in {"train": self.train, **self.test}.items():
            path = Path(pattern)
            found = sorted(path.rglob("*.json")) if path.is_dir() else sorted(path.parent.glob(path.name))
            if not found:
                raise FileNotFoundError(f"mind2web: {'train' if split == 'train' else f'test.{split}'}: no file at {pattern}")
            yield from ((split, file) for file in found)

    def episodes(self) -> int:
        """Number of tasks, counted without parsing the files."""
        return sum(_occurrences(file, b'"annotation_id"') for _, file in self._files())

    def split_of(self, episode: str) -> str | None:
        """Tasks of the test files are the test split."""
        return None if episode.startswith("train/") else "test"

    def manifest(self) -> dict[str, Any]:
        """Options and counts."""
        options = {name: getattr(self, name) for name in ("train", "test", "page_tokens", "no_element")}
        return {"dataset": "Mind2Web", **options, "recorder_counts": dict(self.counts)}

    def record(self) -> Iterator[list[Transition]]:
        """Yields a task at a time, in the order of the files.

        Raises:
            DataError: naming file, task and field of what is wrong.
        """
        self.counts.clear()
        seen: dict[str, str] = {}
        for split, file in self._files():
            for number, task in enumerate(elements(file, "mind2web"), start=1):
                where = f"{file}, task {number}"
                name = f"{split}/{_text(task, 'annotation_id', where)}"
                if name in seen:
                    raise DataError(f"{where}: annotation_id of {name!r} was at {seen[name]} already")
                seen[name] = where
                yield self._task(task, name, where)

    def _task(self, task: Mapping[str, Any], name: str, where: str) -> list[Transition]:
        actions = task.get("actions")
        if not isinstance(actions, list):
            raise DataError(f"{where}: field 'actions' must be a list, got {type(actions).__name__}")
        words = task.get("action_reprs") or []
        context = f"{task.get('website', '')}: {clean(str(task.get('confirmed_task', '')))}"
        kept: list[Transition] = []
        self.counts["last actions, without a next page"] += bool(actions)
        for i, (action, following) in enumerate(pairwise(actions)):
            place = f"{where}, action {i + 1}"
            before, after = (_text(a, "cleaned_html", place) for a in (action, following))
            if not after.strip() or not before.strip():
                self.counts["empty pages"] += 1
                continue
            node = _node(action)
            if node is None or _find(before, node) is None:
                self.counts["actions that point at no element"] += 1
                if self.no_element == "drop":
                    continue
            phrase = clean(str(words[i])) if i < len(words) else describe(action)
            state, next_state = (self._cut(page, node, which) for page, which in ((before, "state"), (after, "next state")))
            kept.append(Transition(state, next_state, phrase, context=context, episode=name, step=i))
        return kept

    def _cut(self, page: str, node: str | None, which: str) -> str:
        text, left_out = cut_page(page, node, self.page_tokens)
        if left_out:
            self.counts[f"{which}: pages cut"] += 1
            self.counts[f"{which}: characters cut"] += left_out
        return text


class Mind2WebDataModule(WorldDataModule):
    """Mind2Web's released pages and actions.

    Args:
        recorder: What is recorded where it is missing.
        path: Folder of the recording.
        **transitions: options of ``TransitionDataModule``.
    """

    def __init__(
        self,
        recorder: Mind2WebRecorder = Mind2WebRecorder(),  # noqa: B008  # holds options only
        path: str = "data/mind2web",
        **transitions: Any,
    ) -> None:
        super().__init__(recorder, path, **transitions)


def clean(text: str) -> str:
    """Text on one line, with control characters shown as U+FFFD."""
    return _SPACE.sub(" ", _CONTROL.sub("\ufffd", text)).strip()


def describe(action: Mapping[str, Any]) -> str:
    """An action as text, in the wording of ``action_reprs``: ``[searchbox] Where to? -> TYPE: Boston``."""
    operation = action.get("operation") or {}
    candidates: Sequence[Mapping[str, Any]] = action.get("pos_candidates") or []
    tag = candidates[0].get("tag", "") if candidates else ""
    value = operation.get("value") or ""
    return clean(f"[{tag}] -> {operation.get('op', '')}" + (f": {value}" if value else ""))


def cut_page(page: str, node: str | None, budget: int) -> tuple[str, int]:
    """The part of a page around an element, whole tags and texts.

    Args:
        page: HTML with ``backend_node_id`` attributes; they are taken out.
        node: id of the element in the middle; without it, or when it is not in the page, the beginning is kept.
        budget: most tokens (words and punctuation marks), the marks of the cuts aside.

    Returns:
        The part, with a comment where something was cut, and the number of characters that were left out.
    """
    place = 0 if node is None else _find(page, node) or 0
    reach = budget * _LONGEST
    start = max(0, place - reach)
    left = _PIECE.findall(page[start:place])
    if start and left:
        left.pop(0)  # may be half a tag
    right = _PIECE.findall(page[place : place + reach])
    if place + reach < len(page) and len(right) > 1:
        right.pop()
    kept_left: list[str] = []
    kept_right: list[str] = []
    room, i, j, raw = budget, len(left), 0, 0
    while (open_left := i > 0) | (open_right := j < len(right)):
        take_right = open_right and (j <= len(left) - i or not open_left)
        piece = right[j] if take_right else left[i - 1]
        shown = clean(NODE_ID.sub("", piece))
        if (size := sum(1 for _ in _TOKEN.finditer(shown))) > room:
            if not kept_right and take_right:  # the element itself is longer than the budget
                kept_right.append(shown[: budget * 4])
            break
        room, raw = room - size, raw + len(piece)
        if take_right:
            kept_right.append(shown)
            j += 1
        else:
            kept_left.append(shown)
            i -= 1
    parts = [part for part in (*reversed(kept_left), *kept_right) if part]
    cut_left = start > 0 or i > 0
    cut_right = place + reach < len(page) or j < len(right)
    text = " ".join([*([CUT] if cut_left else []), *parts, *([CUT] if cut_right else [])])
    return text, len(page) - raw if cut_left or cut_right else 0


def _find(page: str, node: str) -> int | None:
    at = page.find(f'backend_node_id="{node}"')
    return None if at < 0 else max(0, page.rfind("<", 0, at))


def _node(action: Mapping[str, Any]) -> str | None:
    for candidate in action.get("pos_candidates") or []:
        if (node := candidate.get("backend_node_id")) is not None:
            return str(node)
    return None


def _text(holder: Any, name: str, where: str) -> str:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    if not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} must be text, got {type(value).__name__}")
    return value


def _occurrences(file: Path, wanted: bytes) -> int:
    count, tail = 0, b""
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            count += (tail + block).count(wanted)
            tail = block[-(len(wanted) - 1) :]
    return count

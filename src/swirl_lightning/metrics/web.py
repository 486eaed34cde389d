"""How far a predicted page is from the true one, and whether what changed is right.

A page is the list of its elements in document order: depth, tag, attributes, own text. Pages are aligned by edit distance over
these lists (``rapidfuzz``); it is linear in what changed and exact for changes of attributes and texts, for elements that
appear and that vanish. An element that moves counts as one that vanishes and one that appears.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from typing_extensions import override

from swirl_lightning.hints import require
from swirl_lightning.metrics.text import MeanOf, check_pairs
from swirl_lightning.metrics.tools import multiset_f1

Element = tuple[int, str, tuple[tuple[str, str], ...], str]
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


@lru_cache(maxsize=64)
def elements(page: str) -> tuple[Element, ...]:
    """Elements of a page or fragment in document order: depth, tag, sorted attributes, own text with single spaces.

    Any text is a page: the parser mends broken HTML, plain text is one element's text. Comments are left out and
    characters that no document may hold (NUL and its like) are replaced.

    Args:
        page: HTML of any size.

    Raises:
        ImportError: if lxml is missing.
    """
    etree = require("lxml.etree", "web")
    cleaned = _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", page)
    if not cleaned.strip():
        return ()
    parser = etree.HTMLParser(huge_tree=True, remove_comments=True, remove_pis=True, encoding="utf-8")
    root = etree.fromstring(cleaned.encode(), parser)
    if root is None:  # nothing but end tags
        return ()
    found: list[Element] = []
    stack = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        text = " ".join(" ".join([node.text or "", *(child.tail or "" for child in node)]).split())
        found.append((depth, str(node.tag), tuple(sorted(node.attrib.items())), text))
        stack += [(child, depth + 1) for child in reversed(node)]
    return tuple(found)


class DomEditDistance(MeanOf):
    """Mean edit distance between predicted and true page, in elements over the longer page's, in [0, 1]; lower is better."""

    higher_is_better = False

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references)
        distance = require("rapidfuzz.distance", "web").Levenshtein.normalized_distance
        self._add(distance(elements(p), elements(r)) for p, r in zip(predictions, references, strict=True))


class ChangedElementF1(MeanOf):
    """F1 of the changed elements, mean over the transitions that change one, in [0, 1]. Copying the old page scores 0.

    A change is an element that is put in, taken out or replaced, with its place in the old page and what it becomes. Changes
    that the prediction makes to a page that stays as it was are not counted here; the edit distance shows them. nan when no
    page changed.
    """

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str], states: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references, states=states)
        for prediction, reference, state in zip(predictions, references, states, strict=True):
            before = elements(state)
            true = _changes(before, elements(reference))
            if true:
                self._add([multiset_f1(_changes(before, elements(prediction)), true)])


def _changes(before: Sequence[Element], after: Sequence[Element]) -> Counter[tuple[str, int, Element | None]]:
    editops: Any = require("rapidfuzz.distance", "web").Levenshtein.editops
    return Counter((kind, at, None if kind == "delete" else after[to]) for kind, at, to in editops(before, after).as_list())

"""Answers of tools: JSON validity, fields, errors, and BLEU as StableToolBench publishes it."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from typing_extensions import override

from swirl_lightning.metrics.overlap import CharacterBleu
from swirl_lightning.metrics.text import MeanOf, check_pairs

_ALMOST_JSON = re.compile(r'\s*\{\s*"error":\s*"(?P<error>.*?)",\s*"response":\s*"(?P<response>.*)', re.DOTALL)
_DEEPEST = 60  # of nested answers; json itself gives up near Python's recursion limit


def read_json(text: str) -> Any:
    """The JSON value that a text is, or None where it is no JSON (or ``null``)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def tool_response_text(output: str) -> str:
    """The text of a MirrorAPI answer that StableToolBench scores: lines ``ERROR: ...`` and ``RESPONSE: ...``.

    Models often write what is almost JSON (unescaped quotes or line breaks). It is cut at the two field names and
    keeps its tail, quote and brace included, as in the published predictions. Anything else is scored as it stands.

    Args:
        output: JSON object with ``error`` and ``response``, or what a model wrote instead.

    Returns:
        The text.
    """
    answer = read_json(output)
    if answer is None:
        found = _ALMOST_JSON.match(output)
        return output if found is None else f"ERROR: {found['error']}\nRESPONSE: {found['response']}"
    if not isinstance(answer, dict) or not {"error", "response"} <= answer.keys():
        return output
    return f"ERROR: {answer['error']}\nRESPONSE: {answer['response']}"


def is_error(output: str) -> bool | None:
    """Whether an answer reports an error; None where the text is no answer at all.

    Args:
        output: JSON object, in which a non-empty ``error`` says so, or almost JSON as :func:`tool_response_text` reads it.
    """
    answer = read_json(output)
    if isinstance(answer, dict):
        return bool(answer.get("error"))
    found = None if answer is not None else _ALMOST_JSON.match(output)
    return None if found is None else bool(found["error"])


class ToolBleu(CharacterBleu):
    """StableToolBench's BLEU of tool answers, in [0, 100]: :class:`CharacterBleu` of :func:`tool_response_text`."""

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        super().update([tool_response_text(p) for p in predictions], [tool_response_text(r) for r in references])


class JsonValidity(MeanOf):
    """Share of predictions that are JSON objects or arrays, in [0, 1]."""

    @override
    def update(self, predictions: Sequence[str]) -> None:
        self._add(float(isinstance(read_json(p), (dict, list))) for p in predictions)


class ErrorAccuracy(MeanOf):
    """Share of predictions of the reference's kind, in [0, 1]: an error, an answer without one, or no answer at all."""

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references)
        self._add(float(is_error(p) is is_error(r)) for p, r in zip(predictions, references, strict=True))


class FieldF1(MeanOf):
    """Mean F1 over the fields of answers, in [0, 1].

    A field is the path to a value that has no fields itself, with that value; empty objects and arrays are values. Strings
    that spell an object or array (JSON, or Python literals as in MirrorAPI's responses) are opened. A text that is not JSON is
    one field; line breaks that a string should have escaped are forgiven. A prediction without a field of the reference scores
    0, the reference itself 1.
    """

    @override
    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        check_pairs(predictions=predictions, references=references)
        self._add(multiset_f1(fields(p), fields(r)) for p, r in zip(predictions, references, strict=True))


def fields(text: str) -> Counter[tuple[str, str]]:
    """Fields of a tool's answer, path to value; see :class:`FieldF1`."""
    return Counter(_leaves("", text, 0))


def multiset_f1(ours: Counter[Any], true: Counter[Any]) -> float:
    """Harmonic mean of precision and recall of a multiset; 1 when both are empty."""
    size = ours.total() + true.total()
    return 2 * (ours & true).total() / size if size else 1.0


def _leaves(path: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and depth < _DEEPEST:
        opened = _opened(value)
        value = value if opened is None else opened
    if isinstance(value, (dict, list)) and value and depth < _DEEPEST:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(f"{path}/{key}", item, depth + 1)
    else:
        yield path, value if isinstance(value, str) else repr(value)


def _opened(text: str) -> Any:
    """The object or array that a text spells, as JSON or as a Python literal."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value: Any = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # backslashes of a model's text
                value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, (dict, list)) else None

"""Chats as trajectories: an assistant's turn is an action, what comes back is the next state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from swirl_lightning.data.columns import DataError
from swirl_lightning.data.report import Report
from swirl_lightning.data.values import canonical

_SYSTEM = {"system", "developer"}
_ASSISTANT = {"assistant", "gpt", "model", "bot", "chatgpt", "ai", "agent", "function_call", "tool_call"}
_ANSWER = {"user", "human", "tool", "function", "observation", "environment", "ipython", "tool_response", "function_response"}
_CONTENT = ("content", "value", "text", "system_prompt")  # the first that a turn holds
_TEXT_PARTS = {"text", "input_text", "output_text"}


def trajectory(messages: Any, report: Report) -> tuple[list[str], list[str | None], str]:
    """States, actions and context of a chat in OpenAI's form (role, content) or ShareGPT's (from, value), or with text.

    The context is the system's text and the first user turn. The state is what came back last: tool or user turns since the
    assistant's last one, joined by line breaks; the first state is what came before the assistant's first turn. An assistant's
    turn is its tool calls as JSON, where it has any, and its text otherwise; without either, the action is missing.

    Args:
        messages: the turns, or their JSON text.
        report: gets the counts of what is no part of a transition.

    Returns:
        n + 1 states and n actions, or n and n where the assistant has the last word; and the context.

    Raises:
        DataError: for a turn that cannot be read; it says which, but not the row.
    """
    turns = _parsed(messages)
    states: list[str] = []
    actions: list[str | None] = []
    system: list[str] = []
    waiting: list[str] = []  # what came back since the last action
    first: str | None = None
    for number, turn in enumerate(turns, 1):
        role, content = _role(turn, number), _content(turn, number)
        if role in _SYSTEM and not states:
            system.append(content)
        elif role in _ASSISTANT:
            if waiting or not states:
                states.append("\n".join(waiting))
                actions.append(_action(turn, role, content, number, report))
            else:
                report.counts["assistant turns after another one, with nothing between them"] += 1
            waiting = []
        else:
            first = content if first is None and role not in _SYSTEM else first
            waiting.append(content)
    if waiting:
        states.append("\n".join(waiting))
    return states, actions, "\n".join([*system, *([first] if first is not None else [])])


def action_turns(turns: Sequence[Any]) -> list[int]:
    """Indices of the turns whose actions :func:`trajectory` gives."""
    found: list[int] = []
    waiting = False
    for index, turn in enumerate(turns):
        role = _role(turn, index + 1)
        if role in _ASSISTANT:
            if waiting or not found:
                found.append(index)
            waiting = False
        elif role not in _SYSTEM or found:
            waiting = True
    return found


def _parsed(messages: Any) -> Sequence[Any]:
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError as error:
            raise DataError(f"is text that is not JSON ({error})") from error
    if not isinstance(messages, list):
        raise DataError(f"must be a list of turns, got {type(messages).__name__}: {repr(messages)[:80]}")
    return messages


def _role(turn: Any, number: int) -> str:
    role = (turn.get("role") or turn.get("from")) if isinstance(turn, Mapping) else None
    if role not in _SYSTEM | _ASSISTANT | _ANSWER:
        known = ", ".join(sorted(_SYSTEM | _ASSISTANT | _ANSWER))
        raise DataError(f"turn {number} has no role that is known ({repr(role if role else turn)[:80]}); roles are {known}")
    return str(role)


def _content(turn: Mapping[str, Any], number: int) -> str:
    content = next((turn[name] for name in _CONTENT if turn.get(name) is not None), None)
    if isinstance(content, list):
        others = [part for part in content if not isinstance(part, str | Mapping)]
        others += [p for p in content if isinstance(p, Mapping) and p.get("type", "text") not in _TEXT_PARTS]
        if others:
            raise DataError(f"turn {number} holds something else than text: {repr(others[0])[:80]}; leave such parts out")
        return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)
    return content if isinstance(content, str) else "" if content is None else canonical(content)


def _action(turn: Mapping[str, Any], role: str, content: str, number: int, report: Report) -> str | None:
    calls = turn.get("tool_calls") or ([{"function": call}] if (call := turn.get("function_call")) else [])
    if isinstance(calls, str):
        calls = _parsed(calls)
    if not calls:
        return _call_text(content) if role in ("function_call", "tool_call") else content or None
    report.counts["texts of the assistant beside its tool calls, which are no part of the action"] += bool(content.strip())
    made = [_call(call, number) for call in calls]
    return json.dumps(made[0] if len(made) == 1 else made, ensure_ascii=False)


def _call(call: Any, number: int) -> dict[str, Any]:
    """Name first, then arguments with sorted keys: what is called comes before what with."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or "name" not in function:
        raise DataError(f"turn {number}: a tool call without a name: {repr(call)[:80]}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:  # a model's broken JSON stays text
            return {"name": function["name"], "arguments": arguments}
    return {"name": function["name"], "arguments": json.loads(canonical(arguments))}


def _call_text(content: str) -> str:
    """A call that ShareGPT holds as text, in the same form where it is JSON."""
    try:
        return json.dumps(_call(json.loads(content), 0), ensure_ascii=False)
    except (ValueError, DataError):
        return content

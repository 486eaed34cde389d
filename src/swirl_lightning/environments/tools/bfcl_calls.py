"""Calls of BFCL's simulated APIs, and the wrong or other ones that a careless user might make."""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

Kind = Literal["missing", "type", "value", "order"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Values = Mapping[tuple[str, str], Sequence[Any]]
"""Function and argument to the values that it has in any dialogue."""


class Call(NamedTuple):
    """A call of an API's function, with its arguments by name."""

    api: str
    function: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        """As it is written in Python."""
        return f"{self.function}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


class Dialogue(Protocol):
    """What a call is made in: the reference calls, and the parameters of the functions by name."""

    calls: list[Call]
    parameters: dict[str, Mapping[str, inspect.Parameter]]


def perturb(
    kind: str, call: Call, dialogue: Dialogue, state: Mapping[str, Any], elsewhere: Values, rng: random.Random
) -> Call | None:
    """A wrong or other call in place of a reference call; None where the kind does not apply.

    Args:
        kind: one of ``KINDS``.
        call: the reference call.
        dialogue: what else is called in it.
        state: of the call's API.
        elsewhere: function and argument to the values that it has in any dialogue.
        rng: draws.
    """
    if kind == "order":
        return rng.choice(dialogue.calls)
    arguments = dict(call.arguments)
    if not arguments:
        return None
    if kind == "missing":
        parameters = dialogue.parameters[call.function]
        required = [name for name in arguments if name in parameters and parameters[name].default is inspect.Parameter.empty]
        if not required:
            return None
        del arguments[rng.choice(required)]
        return call._replace(arguments=arguments)
    name = rng.choice(list(arguments))
    value = arguments[name]
    if kind == "type":
        arguments[name] = rng.choice(_other_types(value))
    else:
        here = [x for other in dialogue.calls for x in other.arguments.values()]
        here += [x for item in state.values() for x in _scalars(item)]
        known = rng.choice((here, elsewhere.get((call.function, name), here)))
        choices = [x for x in known if type(x) is type(value) and x != value]
        if not choices:
            return None
        arguments[name] = rng.choice(choices)
    return call._replace(arguments=arguments)


def _other_types(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [str(value).lower(), int(value)]
    if isinstance(value, (int, float)):
        return [str(value), [value], None]
    if isinstance(value, str):
        return [len(value), [value], None]
    return [str(value), len(value) if hasattr(value, "__len__") else 0, None]


def _scalars(value: Any) -> list[Any]:
    """Keys and short values of a state, from which another argument may come."""
    if isinstance(value, dict):
        return [x for key, item in value.items() for x in (key, *_scalars(item))]
    if isinstance(value, list):
        return [x for item in value for x in _scalars(item)]
    return [] if isinstance(value, str) and len(value) > 80 else [value]

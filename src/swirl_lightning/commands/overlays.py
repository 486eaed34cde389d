"""Configurations without repetition: a YAML file names the files that it builds on.

    defaults: small.yaml            # or a list; relative to this file
    model:
      fwm_optimizer:
        init_args: { lr: 2.0e-3 }   # the rest as in small.yaml

What the file says comes on top of its defaults, mapping by mapping. A mapping with another ``class_path`` replaces what was
there, as lists do; a key that ends in ``+`` appends to the list (``callbacks+``), to the option's own where no file has one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from swirl_lightning.hints import did_you_mean

DEFAULTS = "defaults"


def with_overlays(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command in which every configuration that names defaults is whole.

    Args:
        arguments: Arguments of the command; ``--config FILE`` or ``--config=FILE``.

    Returns:
        The same; a file that builds on others is replaced by what they make together, as text.

    Raises:
        FileNotFoundError: if a file is missing, or one that it names as a default.
        ValueError: if a file is not YAML, or builds on itself.
    """
    return with_configs(arguments, _whole)


def with_configs(arguments: Sequence[str], change: Callable[[str], str]) -> list[str]:
    """Arguments of a command with every configuration (a file, or its text) changed.

    Args:
        arguments: Arguments of the command; ``--config FILE`` or ``--config=FILE``.
        change: From what was named to what takes its place.
    """
    changed = list(arguments)
    for place, argument in enumerate(arguments):
        if argument.startswith("--config="):
            changed[place] = f"--config={change(argument.removeprefix('--config='))}"
        elif place and arguments[place - 1] == "--config":
            changed[place] = change(argument)
    return changed


def place_of(arguments: Sequence[str], key: str, word: str | None) -> str | None:
    """Where an option stands in the configurations of a command.

    Args:
        arguments: Arguments of the command, as they were typed.
        key: Dotted name of the option; parts of it that a file leaves out (``init_args``) are passed over.
        word: A name or a value that must stand at or below the option; None takes the option itself.

    Returns:
        ``FILE, line N``; None where no file says it, or the command line does.
    """
    if any(argument.startswith(f"--{key.partition('.init_args')[0]}") for argument in arguments):
        return None
    for value in reversed(_configs(arguments)):
        if os.path.isfile(value):
            for file in _with_defaults(Path(value)):
                tree = yaml.compose(file.read_text(encoding="utf-8"))
                if tree is not None and (line := _line_of(tree, key.split("."), word)) is not None:
                    return f"{file}, line {line}"
    return None


def _configs(arguments: Sequence[str]) -> list[str]:
    return [
        argument.partition("=")[2] or argument
        for before, argument in zip(("", *arguments), arguments, strict=False)
        if argument.startswith("--config=") or before in ("--config", "-c")
    ]


def _with_defaults(file: Path) -> Iterator[Path]:
    """A configuration, then those that it builds on, the last first."""
    yield file
    content = _load(file)
    names = content.get(DEFAULTS, []) if isinstance(content, Mapping) else []
    for name in reversed([names] if isinstance(names, str) else names):
        yield from _with_defaults(file.parent / str(name))


def _line_of(node: yaml.Node, path: Sequence[str], word: str | None) -> int | None:
    """Line of a word at or below a path."""
    if isinstance(node, yaml.SequenceNode):
        found = (_line_of(child, path, word) for child in node.value)
        return next((line for line in found if line is not None), None)
    if path and isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value.removesuffix("+") == path[0]:
                if len(path) == 1 and word in (None, path[0]):
                    return int(key.start_mark.line) + 1
                return _line_of(value, path[1:], word)
    if path:
        return _line_of(node, path[1:], word) if path[0] == "init_args" else None
    if isinstance(node, yaml.MappingNode):
        found = (_line_of(value, path, word) for _, value in node.value)
        return next((line for line in found if line is not None), None)
    named = word is not None and f".{word}".endswith(f".{node.value}")  # a class, with its module or without
    return int(node.start_mark.line) + 1 if named else None


def _whole(value: str) -> str:
    if not os.path.isfile(value):
        if value.endswith((".yaml", ".yml")):
            there = [str(file) for file in Path(value).parent.glob("*.y*ml")]
            raise FileNotFoundError(f"there is no configuration {value}{did_you_mean(value, there, listed=False)}")
        return value  # options as text
    content = _load(Path(value))
    if not isinstance(content, Mapping):
        got = "nothing: it is empty" if content is None else type(content).__name__
        raise ValueError(f"{value} must hold options by name, got {got}")
    return yaml.safe_dump(read_config(value), sort_keys=False) if DEFAULTS in content else value


def read_config(file: Path | str) -> dict[str, Any]:
    """A configuration on top of its defaults.

    Args:
        file: YAML; or YAML as text, without defaults.

    Raises:
        FileNotFoundError: if a file that is named as a default is missing.
        ValueError: if a file is not YAML or no mapping, or builds on itself.
    """
    return _read(Path(file), ()) if os.path.isfile(file) else dict(yaml.safe_load(str(file)))


def _read(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if file.resolve() in above:
        raise ValueError(f"{' -> '.join(map(str, (*above, file)))}: a configuration that builds on itself (defaults)")
    content = _load(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} must hold options by name, got {type(content).__name__}")
    own, made = dict(content), dict[str, Any]()
    names = own.pop(DEFAULTS, [])
    for name in [names] if isinstance(names, str) else names:
        below = (file.parent / str(name)).resolve()
        if not below.is_file():
            raise FileNotFoundError(f"{file}: defaults names {name!r}, but there is no file {below}")
        made = _on_top(made, _read(below, (*above, file.resolve())))
    return _on_top(made, own)


def _on_top(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(below)
    for key, value in above.items():
        name, known = key.removesuffix("+"), made.get(key.removesuffix("+"))
        if name != key:
            place = name if name in made else key
            made[place] = [*(made.get(place) or []), *value]
        elif isinstance(value, Mapping) and isinstance(known, Mapping) and not _another_class(known, value):
            made[key] = _on_top(known, value)
        else:
            made.pop(f"{key}+", None)
            made[key] = _on_top({}, value) if isinstance(value, Mapping) else value
    return made


def _another_class(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return "class_path" in above and below.get("class_path", above["class_path"]) != above["class_path"]


def _load(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {str(error).replace(chr(10), ' ')}") from error

"""Parsers that answer a mistake with one sentence: which option, what is wrong with it, which name was probably meant.

jsonargparse says it in up to 170 lines: the usage of the command, then every type that a value was tried as. Here its text is
read, and what matters of it is kept; a text of an unknown form is passed on as it is. ``SWIRL_DEBUG=1`` shows all of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn, get_args

from jsonargparse import ArgumentParser, Namespace

from swirl_lightning.hints import did_you_mean

_PATTERNS = {  # what a line says: how jsonargparse (4.49 to 4.53) and argparse word it
    "class": r"Problem with given class_path '(?P<word>[^']+)'",
    "unknown": r"(?:Group '(?P<group>[^']+)' does not accept o|Subcommand '[^']+' does not accept o|O)ption '(?P<word>[^']+)'",
    "unrecognized": r"unrecognized arguments: (?P<word>.+)",
    "required": r"the following arguments are required: (?P<word>.+)",
    "no class": r"Expected a dot import path string: (?P<word>.+)",
    "no import": r"(?P<word>(?:module '[^']+' has no attribute|No module named) .+)",
    "choice": r"(?:Expected a typing\.Literal|(?P<word>\S+) (?:not among choices|\(choose from) )(?P<choices>.*?)(?:[\])]|$)",
    "type": r"Expected an? (?:<class '(?P<type>[^']+)'>|(?P<other>[\w.]+\[.*?\]))|Not a valid subclass of (?P<options>\w+)",
    "mapping": r"Unable to load config ['\"](?P<word>.*)['\"]$",
}
_KEY = re.compile(r"(?:- )?(?:Parser key |argument )\"?(?P<name>[\w.\-/]+)\"?:")
_LINES = {kind: re.compile(pattern) for kind, pattern in _PATTERNS.items()}
_ABOUT_TYPES = re.compile(
    r"\s*(?:- )?(?:$|Does not validate|Subtypes:|Errors:|Given value|Subclass types expect|a \S|Expected a path but)"
)
_GIVEN = re.compile(r"(?:Got value|Given value): (.*)")
_SETTLES = ("unrecognized", "unknown", "required", "no import", "no class", "mapping")  # each settles it, the first first
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "dict": "names with values",
    "list": "a list",
    "collections.abc.Iterable": "a list",
}


class UsageError(ValueError):
    """An option that is not understood.

    Attributes:
        key: Dotted name of the option, None where it is about none.
        word: What is wrong in it, as it was written: a name or a value.
    """

    def __init__(self, message: str, key: str | None = None, word: str | None = None) -> None:
        super().__init__(message)
        self.key, self.word = key, word


class Parser(ArgumentParser):
    """An ArgumentParser that raises what it has to say."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises a mistake in one sentence.

        Raises:
            UsageError: always; jsonargparse's own error where it tries out types.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        raise _sentence(getattr(ex, "subcommand_parser", self), message) from ex

    def instantiate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> Namespace:
        """Makes the objects that a configuration names.

        Raises:
            UsageError: for one that cannot be made; what a class says itself is raised as it is.
        """
        try:
            made: Namespace = super().instantiate(namespace, *args, **kwargs)
            return made
        except ValueError as error:
            lines = [line for line in str(error).splitlines() if "- Expected a <class" not in line]
            if len(lines) < 2 or not any(_LINES["class"].search(line) or _ABOUT_TYPES.match(line) for line in lines):
                raise
            raise _sentence(self, "\n".join(lines)) from error


@dataclass(frozen=True)
class _Finding:
    """What one line of a text says, and of which option: its dotted path, and the classes of nested options on the way."""

    kind: str
    path: str
    owner: str | None
    found: dict[str, Any]
    line: str


def _findings(message: str) -> Iterator[_Finding]:
    """Lines in their order. Indentation says which belong to which."""
    above: list[tuple[int, str, str | None]] = [(-2, "", None)]
    for line in message.splitlines():
        if _ABOUT_TYPES.match(line):
            continue
        text = line.lstrip()
        indent = len(line) - len(text) + 2 * text.startswith("- ")
        while above[-1][0] >= indent:
            above.pop()
        _, path, owner = above[-1]
        if key := _KEY.match(text):
            path = path if path.endswith(key["name"]) else f"{path}.{key['name']}".lstrip(".")
            above.append((indent or -1, path, owner))  # all the rest is about the option of the first line
            if not (text := text[key.end() :].strip()):
                continue
        kind, match = next(
            ((kind, match) for kind, pattern in _LINES.items() if (match := pattern.search(text))), ("said", None)
        )
        found = match.groupdict() if match else {"word": text}
        if kind == "class":
            above.append((indent, f"{path}.init_args", found["word"]))
            continue
        if kind == "unknown" and (inline := re.search(r"class_path='([^']+)'", text)):
            path, owner = f"{path}.init_args", inline[1]
        yield _Finding(kind, path, owner, found, text)


def _sentence(parser: ArgumentParser, message: str) -> UsageError:
    error = _read(parser, message)
    error.add_note(message)  # a traceback shows it
    return error


def _read(parser: ArgumentParser, message: str) -> UsageError:
    found = list(_findings(message))
    for kind in _SETTLES:
        for finding in found:
            if finding.kind == kind:
                return _settled(parser, finding)
    types = [finding for finding in found if finding.kind in ("choice", "type")]
    said = [finding for finding in found if finding.kind == "said" and (finding.owner or not types)]
    if said or not types:
        return _said(said[0]) if said else UsageError(re.sub(r"\s*\n\s*", " ", message))
    deepest = max(types, key=lambda finding: finding.path.count("."))
    given = _GIVEN.search(message[message.index(deepest.line) :])
    return _of_types([finding for finding in types if finding.path == deepest.path], deepest.path, given[1] if given else None)


def _settled(parser: ArgumentParser, finding: _Finding) -> UsageError:
    path, word, owner = finding.path, str(finding.found["word"]), finding.owner
    if finding.kind in ("unknown", "unrecognized"):
        if finding.kind == "unrecognized" and not word.startswith("-"):
            return UsageError(f"{_command(parser)} has no place for {word!r}; options begin with --")
        option = word.split()[0].partition("=")[0].lstrip("-")
        return _unknown(parser, ".".join(filter(None, (path, finding.found.get("group"), option))), owner)
    if finding.kind == "required":
        names = re.sub(r"(?<!\S)(fit|validate|test|predict)\.", "", word).split(", ")
        flags = {action.dest: action.option_strings[0] for action in _actions(parser) if action.option_strings}
        shown = [f"{path}.{name}" if owner else flags.get(name, name) for name in names]
        listed = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
        return UsageError(f"{listed} must be given{f' ({_short(owner)})' if owner else ''}", path or None)
    if finding.kind == "no import":
        name, option = str(owner), path.removesuffix(".init_args")
        module = re.search(r"'([^']+)'", word)
        if module and not f"{name}.".startswith(f"{module[1]}."):  # of a name within the class's own options
            missing = word.partition(". Got value")[0]
            return UsageError(f"{option}: {missing}; modules are found on PYTHONPATH", option, module[1])
        known = _class_names(parser, option)
        hint = did_you_mean(_short(name), known, listed=False) or (
            "; modules are found on PYTHONPATH" if "module named" in word else ""
        )
        return UsageError(f"{option}: there is no class {name!r} ({word}){hint}", option, name)
    if finding.kind == "no class":
        hint = (
            did_you_mean(word, _class_names(parser, path))
            or "; a class of your own is named with its module: package.module.Class"
        )
        return UsageError(f"{path}: there is no class {word!r}{hint}", path, word)
    return UsageError(f"{path} must hold options by name, got {word!r}", path, word)


def _said(finding: _Finding) -> UsageError:
    option = finding.path.removesuffix(".init_args")
    about = [option, _short(finding.owner) if finding.owner else "", finding.found["word"].lstrip("- ")]
    return UsageError(": ".join(filter(None, about)), option or None)


def _unknown(parser: ArgumentParser, name: str, owner: str | None) -> UsageError:
    """An option that does not exist: the first part of its name that nothing begins with is what was misspelt."""
    inside = 0 if owner is None else name.rindex(".init_args.") + len(".init_args.")
    known = [action.dest for action in _actions(parser if owner is None else _parser_of(owner))]
    parts = name[inside:].split(".")
    at = next((n for n in range(1, len(parts) + 1) if not _below(".".join(parts[:n]), known)), len(parts))
    parent, wrong = "".join(f"{part}." for part in parts[: at - 1]), parts[at - 1]
    siblings = {other.removeprefix(parent).partition(".")[0] for other in known if other.startswith(parent)}
    hint = did_you_mean(wrong, sorted(siblings), listed=False)
    elsewhere = [other for other in known if other.rpartition(".")[2] == parts[-1]]
    if not hint and elsewhere:
        hint = f"; did you mean {' or '.join(elsewhere[:3])}?"
    hint = (
        hint or did_you_mean(wrong, sorted(siblings), listed=len(siblings) <= 12) or f"; {_command(parser)} --help lists them"
    )
    option = name[:inside] + parent + wrong
    return UsageError(f"{option} is no option of {_short(owner) if owner else _command(parser)}{hint}", option, wrong)


def _of_types(findings: list[_Finding], path: str, given: str | None) -> UsageError:
    """A value of the wrong type: what it was tried as, and what it is."""
    choices, wanted = list[str](), list[str]()
    for finding in findings:
        found = finding.found
        if listed := found.get("choices"):
            choices += re.findall(r"[^\s,'()\[\]]+", listed)
            given = found.get("word") or given
        elif found.get("options"):
            wanted.append(f"options of {found['options']}")
        else:
            name = found.get("type") or found["other"]
            wanted.append(_TYPES.get(name, _short(name)))
    value = (given or "").strip("'")
    if choices:
        wanted.append(f"one of {', '.join(choices)}")
    hint = did_you_mean(value, choices, listed=False)
    return UsageError(f"{path} must be {' or '.join(dict.fromkeys(wanted))}, got {value!r}{hint}", path, value)


def _below(name: str, known: list[str]) -> bool:
    return any(other == name or other.startswith(f"{name}.") for other in known)


def _short(name: str | None) -> str:
    return str(name).rpartition(".")[2]


def _command(parser: ArgumentParser) -> str:
    program, _, subcommand = str(parser.prog).partition(" [options] ")
    return program if " " in program else f"{program} {subcommand}".strip()


def _actions(parser: ArgumentParser) -> list[Any]:
    from swirl_lightning.internals import options_of  # it brings torch, which a mistake alone may wait for

    return options_of(parser)


def _parser_of(class_path: str) -> ArgumentParser:
    """A parser of a class's own options."""
    module, _, name = class_path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False, add_help=False, print_config=None)
    parser.add_class_arguments(getattr(import_module(module), name), None)
    return parser


def _class_names(parser: ArgumentParser, path: str) -> list[str]:
    """Short names of the classes that an option takes, or one on the way to it."""
    from swirl_lightning.internals import type_of_option

    names: dict[str, None] = {}
    for action in _actions(parser):
        if path == action.dest or path.startswith(f"{action.dest}."):
            for base in _classes_in(type_of_option(action)):
                names |= dict.fromkeys(kind.__name__ for kind in _subclasses(base) if not kind.__name__.startswith("_"))
    return list(names)


def _classes_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, list | tuple):
        for part in hint:
            yield from _classes_in(part)
    elif parts := get_args(hint):
        yield from _classes_in(parts)
    elif isinstance(hint, type) and hint.__module__ in sys.modules and hint.__module__ != "builtins":
        yield hint


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    yield base
    for below in base.__subclasses__():
        yield from _subclasses(below)

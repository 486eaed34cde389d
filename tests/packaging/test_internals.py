"""Private names of torch, transformers, Lightning and peft stand in internals.py, with what must be known of them."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import swirl_lightning.callbacks

import swirl_lightning
from swirl_lightning import internals

ROOT = Path(__file__).parents[2]
FILES = [
    file
    for folder in ("src/swirl_lightning", "callbacks")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file.name != "internals.py" and "environments" not in file.parts  # simulators have insides of their own
]
PUBLIC = {"_replace", "_exit", "_fields", "_asdict"}  # of named tuples and os
LIBRARIES = {"lightning", "lightning_fabric", "torch", "transformers", "peft"}
MUST_SAY = re.compile(r"Test:\s+tests/\S+\.py.*(Goes|Can go)\s+(when|with)|(Goes|Can go) when.*Test: tests/\S+\.py", re.S)


def is_private(name):
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def private_names(file):
    """Private names that a file takes from anything but itself or an object of its own."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    own |= {  # attributes that some method sets on itself
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and is_private(node.attr)
            and ast.unparse(node.value) not in ("self", "cls", "super()")
        ):
            if node.attr not in own:
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("swirl_lightning"):
            yield from ((node.lineno, alias.name) for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr") and len(node.args) > 1:
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)) and ast.unparse(node.args[0]) != "self":
                yield node.lineno, name.value


def test_no_other_file_leans_on_private_names():
    assert len(FILES) > 100
    found = [f"{file.relative_to(ROOT)}, line {line}: {name}" for file in FILES for line, name in private_names(file)]
    assert not found, "these belong into internals.py, with a reason, a test and when they can go"


def written(kind):
    """Whether a class has a Python source."""
    try:
        return bool(inspect.getsource(kind))
    except (OSError, TypeError):
        return False


def inherited():
    """(class, private name) of ours that a class of a library has, too."""
    for package in (swirl_lightning, swirl_lightning.callbacks):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if ".__main__" in info.name or "environments" in info.name:
                continue
            module = importlib.import_module(info.name)
            for name, ours in inspect.getmembers(module, inspect.isclass):
                bases = [base for base in ours.__mro__ if base.__module__.partition(".")[0] in LIBRARIES]
                if ours.__module__ != info.name or not bases:
                    continue
                text = inspect.getsource(ours)
                used = set(re.findall(r"(?:self|cls|super\(\))\.(_[a-z]\w*)|def (_[a-z]\w*)", text))
                theirs = " ".join(inspect.getsource(base) for base in bases if written(base))
                for private in {one or other for one, other in used}:
                    if re.search(rf"(?:self|cls)\.{private}\b|def {private}\b", theirs):
                        yield name, private


def test_what_subclasses_share_with_their_bases_is_listed():
    assert set(inherited()) == set(internals.INHERITED)


DESCRIBED = [
    *[(str(key), text) for key, text in internals.INHERITED.items()],
    *[
        (name, inspect.getdoc(thing))
        for name, thing in vars(internals).items()
        if inspect.isfunction(thing) and thing.__module__ == internals.__name__
    ],
]


@pytest.mark.parametrize(("name", "text"), DESCRIBED, ids=[name for name, _ in DESCRIBED])
def test_each_says_which_test_breaks_first_and_when_it_can_go(name, text):
    assert MUST_SAY.search(text), f"{name}: say 'Test: tests/... Goes when ...'"
    for file in re.findall(r"tests/\S+\.py", text):
        assert (ROOT / file).is_file(), f"{name} names {file}, which is not there"

"""The house: rooms in an order from the ground up, no file in a circle with another, few loose files."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "swirl_lightning"
ROOMS = [
    *("types", "hints", "files", "internals"),
    *("codecs", "distributed", "metrics", "scoring", "rollout", "world_model"),
    *("data", "algorithm", "evaluation", "conversion"),
    *("environments", "codec_training", "callbacks"),
    *("commands", "fit", "cli", "__main__"),
]
"""Bottom to top: a room imports only from rooms that are named before it."""


def _modules():
    files = {file: file.relative_to(SOURCE) for file in SOURCE.rglob("*.py")}
    files |= {file: Path("callbacks", file.name) for file in (ROOT / "callbacks").glob("*.py")}
    names = {file: ".".join(("swirl_lightning", *short.with_suffix("").parts)) for file, short in files.items()}
    return {name.removesuffix(".__init__"): file for file, name in names.items()}


MODULES = _modules()


def imported(name):
    """Our modules that a module imports, wherever in it; what only type checkers read is left out."""
    found, tree = set(), ast.parse(MODULES[name].read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: imports are absolute"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (full & MODULES.keys()) | ({str(node.module)} if full - MODULES.keys() else set())
    return (found & MODULES.keys()) - {name}


def room(module):
    return module.split(".")[1] if "." in module else None


def test_imports_go_down_only():
    assert set(filter(None, map(room, MODULES))) <= set(ROOMS), "a new room needs its place in the order"
    upwards = [
        f"{name} imports {other}"
        for name in MODULES
        for other in imported(name)
        if room(name) and room(other) and ROOMS.index(room(other)) > ROOMS.index(room(name))
    ]
    assert not upwards


def test_no_files_import_each_other_in_a_circle():
    try:
        TopologicalSorter({name: imported(name) for name in MODULES}).prepare()
    except CycleError as circle:
        pytest.fail(f"a circle: {' <- '.join(circle.args[1])}")


def test_few_files_are_loose():
    loose = {file.name for file in SOURCE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert len(loose) <= 6, sorted(loose)
    assert all((SOURCE / name / "__init__.py").is_file() for name in ROOMS if (SOURCE / name).is_dir())


@pytest.mark.parametrize("folder", ["src", "callbacks", "howto", "tests", "benchmarks", "studies"])
def test_files_and_functions_are_short(folder):
    long = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        text, name = file.read_text(encoding="utf-8"), str(file.relative_to(ROOT))
        long[name] = len(text.splitlines()) - 400
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and folder != "tests":
                long[f"{name}: {node.name}"] = node.end_lineno - node.lineno + 1 - 80
    assert not {name: lines for name, lines in long.items() if lines > 0}

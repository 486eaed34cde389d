"""The documentation: it builds strictly, needs nothing from elsewhere, names every key, and its commands parse."""

import logging
import re
import shlex
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from swirl_lightning import callbacks
from swirl_lightning.cli import main
from tests.packaging.prose import ROOT, files
from tests.packaging.test_readme import CODE

PAGES = [page for page in files() if page.is_relative_to(ROOT / "docs") or page.parent in (ROOT, ROOT / "howto")]
OF_OTHERS = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//""")
SHELL = ("", "console", "bash", "sh")
DATA = {"data": {"class_path": "TransitionDataModule", "init_args": {"path": "steps.jsonl"}}}


def commands(page):
    """``swirl`` commands in the fenced blocks of a page, but of those that are marked as not run here."""
    before, language, block = "", None, []
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = re.match(r"\s*```\s*(.*)$", line)
        if fence is None:
            block.append(line.strip())
            before = line if language is None and line.strip() else before
        elif language is None:
            language, block = fence[1], []
        else:
            if language in SHELL and not before.startswith("<!-- not run here: "):
                parts = re.split(r"\n| && | \|\| ", "\n".join(block).replace("\\\n", " "))
                yield from (part.strip() for part in parts if part.strip().startswith("swirl "))
            before, language = "", None


def options(page):
    """YAML of a run in the fenced blocks of a page."""
    own_data = page.name == "own-data.md"  # tests/data/test_howto.py reads those
    for block in [] if own_data else re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        if re.match(r"(model|data|trainer):", block):
            yield block


class Parsed(BaseException):
    """The arguments were accepted; nothing ran."""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the configurations and files that a reader of the pages has, where commands stop once they have parsed."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "own.yaml").write_text(CODE["yaml"])
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(DATA))
    (tmp_path / "my_package.py").write_text("def my_function(member):\n    return 0.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    parse = ArgumentParser.parse_args

    def stop_then(parser, *args, **kwargs):
        parse(parser, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(ArgumentParser, "parse_args", stop_then)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_parse_and_name_files_that_exist(page, elsewhere, capsys):
    for command in commands(page):
        arguments = shlex.split(command, comments=True)[1:]
        named = [argument for argument in arguments if argument.startswith(("configs/", "docs/", "howto/"))]
        assert all((ROOT / name).exists() for name in named), command
        if set(arguments) & {"-h", "--help"}:
            continue
        try:
            status = main(arguments)
        except Parsed:
            continue
        except SystemExit as stopped:
            status = stopped.code
        pytest.fail(f"{command}\n{status}: {capsys.readouterr().err}")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if [*options(page)]], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_yaml_is_understood(page, elsewhere):
    for block in options(page):
        Path("block.yaml").write_text(block)
        with pytest.raises(Parsed):
            main(["fit", "--config", "configs/quickstart.yaml", "--config", "block.yaml"])


def test_there_are_commands():
    assert sum(len(list(commands(page))) for page in PAGES) > 40


def test_every_key_has_a_line():
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    from docs.keys import page

    lines = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(lines) > 300
    assert [line for line in lines if not line.rstrip(" |").rpartition("|")[2].strip()] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material", reason="needs the extra docs")
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))  # strict: raises Abort with the number of warnings
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_needs_no_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    foreign = {page.name: found[0] for page in pages if (found := OF_OTHERS.search(page.read_text(encoding="utf-8")))}
    assert foreign == {}
    assert "@import url(http" not in "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))


@pytest.mark.slow
def test_the_api_reference_comes_from_docstrings(site):
    page = Path(site, "reference/api/algorithm.html").read_text(encoding="utf-8")
    assert "The judge must be good before the policy is" in page
    page = Path(site, "reference/api/callbacks.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in page for name in callbacks.__all__)
    assert ":meth:" not in page


@pytest.mark.slow
def test_examples_stand_in_the_pages(site):
    assert "CounterRecorder" in Path(site, "howto/own-world.html").read_text(encoding="utf-8")
    assert "JudgeLogprob" in Path(site, "howto/own-reward.html").read_text(encoding="utf-8")
    assert [page for page in site.rglob("*.html") if "--8" in page.read_text(encoding="utf-8")] == []

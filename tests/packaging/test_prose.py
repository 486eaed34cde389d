"""Markdown is easy to read: short lines, short sentences, terms that are explained where README uses them first."""

import re

import pytest

from tests.packaging.prose import LINE, ROOT, complaints, files, plain

README = ROOT / "README.md"
TERMS = re.findall(r"^\* \*\*(.+?)\*\*:", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_lines_and_sentences_are_short(file):
    assert complaints(file.read_text(encoding="utf-8")) == []


def test_readme_is_one_page():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= LINE  # tables, code and links, too


@pytest.mark.parametrize("term", TERMS)
def test_readme_explains_a_term_where_it_first_uses_it(term):
    """The first use is set in italics, as a definition is; headings and code do not count."""
    text = re.sub(r"^```.*?^```|^#.*?$", "", README.read_text(encoding="utf-8"), flags=re.M | re.S)
    words = r"\s".join(map(re.escape, term.split()))
    first = re.search(rf"\**\b{words}s?\b\**", plain(text), re.I)
    assert first, f"README does not use {term!r}"
    assert re.fullmatch(r"\*[^*]+\*", first[0]), f"README uses {term!r} before it explains it"


def test_what_is_found():
    long = "word " * 41 + "end."
    assert [what.split(":")[0] for _, what in complaints(long)] == ["209 characters", "42 words"]
    assert complaints(f"```\n{long}\n```\n\n| {long} |\n") == []  # code and tables
    assert complaints("x" * 130) == []  # what cannot be broken
    assert [number for number, _ in complaints("* Short.\n* " + "word " * 20 + "\n  " + "word " * 21)] == [2]
    assert complaints("Words, e.g. these. " * 6) == []

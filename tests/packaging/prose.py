"""Reads Markdown as prose: lines, sentences, terms. ``python -m tests.packaging.prose FILES`` lists what is too long."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE, SENTENCE = 120, 40  # characters, words
_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^\s*([*+-]|\d+\.)\s+")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|vs|al|cf|[A-Z])\.$")


def files():
    """Every Markdown file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def prose(text):
    """Numbered lines of Markdown that are read as sentences, and blocks of them: paragraphs, items of lists, headings.

    Code keeps the line breaks of its language, and a row of a table is one line of Markdown however long: both are left out.
    """
    blocks, open_fence, fresh = [], None, True
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence and open_fence in (None, fence[1]):
            open_fence, fresh = (None if open_fence else fence[1]), True
        elif open_fence:
            continue
        elif not line.strip() or line.lstrip().startswith(("|", "#", "<", ":::", "--8<--", "!!!", "???")):
            fresh = True
            if line.lstrip().startswith("#"):
                blocks.append([(number, line)])
        elif line.startswith("    ") and fresh:
            continue  # indented code
        elif fresh or _ITEM.match(line):
            blocks.append([(number, line)])
            fresh = False
        else:
            blocks[-1].append((number, line))
    return blocks


def plain(text):
    """Text as it is read aloud: links by their words, code and addresses as one word each."""
    text = re.sub(r"!?\[([^][]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "CODE", text)
    return re.sub(r"https?://\S+", "URL", text)


def sentences(text):
    """Sentences of a block."""
    found, start = [], 0
    for end in re.finditer(r"[.!?:;][)\"*_]*(?=\s)", text):
        if text[end.start()] in ":;" or _ABBREVIATION.search(text[: end.start() + 1]):
            continue
        found.append(text[start : end.end()].strip())
        start = end.end()
    return [*found, text[start:].strip()]


def words(sentence):
    """How many words a sentence has."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def complaints(text):
    """What is too long in a Markdown text: ``(line number, what)``."""
    found = []
    for block in prose(text):
        wide = [(number, line) for number, line in block if len(line) > LINE and " " in _ITEM.sub("", line.strip())]
        found += [(number, f"{len(line)} characters") for number, line in wide]
        first = block[0][0]
        whole = plain(" ".join(line.strip() for _, line in block))
        found += [(first, f"{words(s)} words: {s}") for s in sentences(whole) if words(s) > SENTENCE]
    return sorted(found)


if __name__ == "__main__":
    named = [Path(name) for name in sys.argv[1:]]
    wrong = [(file, *what) for file in named or files() for what in complaints(file.read_text(encoding="utf-8"))]
    for file, number, what in wrong:
        print(f"{file}:{number}: {what}")
    sys.exit(bool(wrong))

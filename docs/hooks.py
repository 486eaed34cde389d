"""What mkdocs.yml leaves to Python: pages that lie elsewhere in the repository, and one that is made from signatures."""

import posixpath
import re
from pathlib import Path

from keys import page as page_of_keys  # beside this file; mkdocs finds it there
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {  # file of the repository: page of the site
    "howto/own-data.md": "howto/own-data.md",
    "benchmarks/README.md": "benchmarks.md",
    "callbacks/README.md": "callbacks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"\[([^][]*)\]\(([^)#:\s]+)(#[^)]*)?\)")


def on_files(files, config):
    """Adds the pages."""
    for file, uri in ELSEWHERE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / file)))
    files.append(File.generated(config, "reference/keys.md", content=page_of_keys()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links are as in the repository: one to a file that is no page of the site becomes its name."""
    uri = page.file.src_uri
    origin = next((file for file, place in ELSEWHERE.items() if place == uri), f"docs/{uri}")

    def in_site(link):
        text, target, anchor = link.groups()
        file = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        place = ELSEWHERE.get(file, file.removeprefix("docs/"))
        if file in ELSEWHERE or file.startswith("docs/"):
            return f"[{text}]({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{anchor or ''})"
        return text if "`" in text or text == file else f"{text} (`{file}`)"

    return _LINK.sub(in_site, markdown)


def on_page_content(html, page, config, files):
    """Roles of docstrings (``:meth:`x```) are read by editors; here the name is enough."""
    return re.sub(r":(?:attr|class|func|meth|mod):(?=<code>)", "", html)

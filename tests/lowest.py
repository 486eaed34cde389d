"""The lowest versions that pyproject.toml allows, as pip's constraints: ``python tests/lowest.py > constraints-lowest.txt``."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
wanted = [*project["dependencies"], *(line for extra in ("minigrid",) for line in project["optional-dependencies"][extra])]
for line in wanted:
    name, least = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()
    print(f"{name}=={least}")

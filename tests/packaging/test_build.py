"""What is built and shipped: every package, the callbacks, the type marker."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_on_disk():
    source = ROOT / "src"
    found = {".".join(file.parent.relative_to(source).parts) for file in source.rglob("__init__.py")}
    return found | {"swirl_lightning.callbacks"}


def test_the_package_list_is_what_is_on_disk():
    assert sorted(SETTINGS["tool"]["setuptools"]["packages"]) == sorted(packages_on_disk())
    assert (ROOT / "callbacks" / "__init__.py").is_file()
    assert (ROOT / "src" / "swirl_lightning" / "py.typed").is_file()


def test_every_python_file_is_in_a_listed_package():
    folders = {file.parent for file in (ROOT / "src" / "swirl_lightning").rglob("*.py")}
    assert {".".join(folder.relative_to(ROOT / "src").parts) for folder in folders} <= packages_on_disk()


@pytest.mark.slow
def test_wheel_and_sdist_hold_everything(tmp_path):
    pytest.importorskip("build")
    copy = tmp_path / "project"
    copy.mkdir()
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "src",
            "callbacks",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr  # the wheel is built from the sdist, so both are whole
    (wheel,), (sdist,) = ((tmp_path / "dist").glob(pattern) for pattern in ("*.whl", "*.tar.gz"))
    modules = {file.relative_to(copy / "src").as_posix() for file in (copy / "src" / "swirl_lightning").rglob("*.py")}
    modules |= {f"swirl_lightning/callbacks/{file.name}" for file in (copy / "callbacks").glob("*.py")}
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert modules <= inside
    assert {"swirl_lightning/py.typed", "swirl_lightning/environments/web/miniwob.js"} <= inside
    assert {name.split("/")[0] for name in inside} <= {"swirl_lightning", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "src/swirl_lightning/py.typed", "callbacks/__init__.py"} <= names

    target = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    script = "import swirl_lightning.callbacks as c, swirl_lightning; print(c.__file__, swirl_lightning.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(target)!r}); {script}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(place.startswith(str(target)) for place in done.stdout.split())


def test_the_command_is_declared():
    assert SETTINGS["project"]["scripts"] == {"swirl": "swirl_lightning.cli:main"}
    from swirl_lightning import cli

    assert callable(cli.main)


def test_every_dependency_bound_says_why():
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.optional-dependencies]")]
    bounded = [line for line in block.splitlines() if "<" in line or "!=" in line]
    assert bounded
    assert all("#" in line for line in bounded if "peft" not in line), bounded

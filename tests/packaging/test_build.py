"""What is built and shipped: every package, the callbacks, the type marker."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist of what git knows."""
    pytest.importorskip("build")
    copy, out = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("dist")
    shipped = ["src", "callbacks", "pyproject.toml", "README.md", "LICENSE"]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *shipped]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr  # the wheel is built from the sdist, so both are whole
    (wheel,), (sdist,) = (out.glob(pattern) for pattern in ("*.whl", "*.tar.gz"))
    return copy, wheel, sdist


@pytest.mark.slow
def test_wheel_and_sdist_hold_everything(built):
    copy, wheel, sdist = built
    modules = {file.relative_to(copy / "src").as_posix() for file in (copy / "src" / "swirl_lightning").rglob("*.py")}
    modules |= {f"swirl_lightning/callbacks/{file.name}" for file in (copy / "callbacks").glob("*.py")}
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert modules <= inside
    assert {"swirl_lightning/py.typed", "swirl_lightning/environments/web/miniwob.js"} <= inside
    assert "swirl_lightning/commands/help/fit.txt" in inside
    assert {name.split("/")[0] for name in inside} <= {"swirl_lightning", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "src/swirl_lightning/py.typed", "callbacks/__init__.py"} <= names


def needed(requirements):
    """The distributions that requirements come to, those of theirs among them, without any extra."""
    found, waiting = {}, [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        extras = [{"extra": extra} for extra in ("", *requirement.extras)]
        name = canonicalize_name(requirement.name)
        if name in found and not requirement.extras:
            continue
        found[name] = distribution(name)
        below = [Requirement(text) for text in found[name].requires or ()]
        waiting += [one for one in below if one.marker is None or any(one.marker.evaluate(extra) for extra in extras)]
    return found.values()


@pytest.mark.slow
def test_the_wheel_trains_in_an_environment_without_extras(built, tmp_path):
    """Nothing is there but the wheel and what it depends on; links spare the download."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    zipfile.ZipFile(built[1]).extractall(site)
    for one in needed(SETTINGS["project"]["dependencies"]):
        for top in {file.parts[0] for file in one.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(one.locate_file(top))
    rows = [
        {"state": f"lamp {a}", "action": f"press {a}", "next_state": f"lamp {1 - a}", "episode": f"e{n}", "step": a}
        for n in range(12)
        for a in (0, 1)
    ]
    (tmp_path / "lamps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = "{hidden_size: 16, layers: 1, heads: 2, vocab_size: 280, max_positions: 400}"
    options = ["--data.path=lamps.jsonl", f"--model.world_model.base={model}", "--model.schedule.iterations=1"]
    options += [f"--model.{role}.{key}" for role in ("fwm", "idm") for key in ("group_size=2", "sampling.max_new_tokens=24")]
    command = [tmp_path / "venv" / "bin" / "python", "-m", "swirl_lightning", "fit", *options, "--trainer.accelerator=cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs" / "default" / "export" / "last" / "fwm" / "README.md").is_file()


def test_container_and_cluster_script_are_what_the_docs_say():
    page = (ROOT / "docs" / "scale.md").read_text()
    container, script = (ROOT / "Dockerfile").read_text(), (ROOT / "howto" / "slurm.sh").read_text()
    assert f"```dockerfile\n{container}```" in page
    assert f"```\n{script}```" in page
    copied = re.findall(r"^COPY (.+) \S+$", container, re.M)
    assert all((ROOT / name).exists() for names in copied for name in names.split())
    kept = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for names in copied for name in names.split()} <= set(kept)
    (python,) = re.findall(r"^FROM python:([\d.]+)", container, re.M)
    assert f">={python}" in SETTINGS["project"]["requires-python"]
    (extras,) = re.findall(r"'\.\[(.+)\]'", container)
    assert set(extras.split(",")) <= set(SETTINGS["project"]["optional-dependencies"])
    assert set(re.findall(r'ENTRYPOINT \["(\w+)"\]', container)) == set(SETTINGS["project"]["scripts"])


def test_what_the_cluster_script_starts_is_understood(monkeypatch, capsys):
    from swirl_lightning.cli import main

    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"swirl (fit .+)", (ROOT / "howto" / "slurm.sh").read_text())
    with pytest.raises(SystemExit) as stopped:
        main([*command.replace('"$1"', "configs/quickstart.yaml").split(), "--print_config"])
    assert stopped.value.code in (0, None)
    assert "num_nodes: 2" in capsys.readouterr().out


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

"""Configurations that build on others: merged mapping by mapping, relative to the file, with errors that name it."""

import pytest
import yaml

from swirl_lightning.cli import main
from swirl_lightning.commands.overlays import read_config, with_overlays


@pytest.fixture
def write(tmp_path):
    """A function that writes files (name: options) and gives the path of the last one."""

    def put(**files):
        for name, options in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(options if isinstance(options, str) else yaml.safe_dump(options))
        return path

    return put


def test_what_a_file_says_comes_on_top_mapping_by_mapping(write):
    file = write(
        root={"a": {"x": 1, "y": [1, 2]}, "b": 1},
        sub__middle={"defaults": "../root.yaml", "a": {"y": [3]}, "c": 3},
        top={"defaults": ["root.yaml", "sub/middle.yaml"], "a": {"y+": [4]}, "b": None},
    )
    assert read_config(file) == {"a": {"x": 1, "y": [3, 4]}, "b": None, "c": 3}


def test_another_class_takes_nothing_of_the_one_before(write):
    adam, lr = {"class_path": "Adam", "init_args": {"lr": 1, "amsgrad": True}}, {"init_args": {"lr": 2}}
    file = write(root={"o": adam, "p": adam}, top={"defaults": "root.yaml", "o": lr, "p": {"class_path": "SGD", **lr}})
    merged = read_config(file)
    assert merged["o"] == {"class_path": "Adam", "init_args": {"lr": 2, "amsgrad": True}}
    assert merged["p"] == {"class_path": "SGD", "init_args": {"lr": 2}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"top": {"defaults": "nowhere.yaml"}}, "defaults names 'nowhere.yaml', but there is no file"),
        ({"a": {"defaults": "b.yaml"}, "b": {"defaults": "a.yaml"}}, "builds on itself"),
        ({"a": {"defaults": "a.yaml"}}, "builds on itself"),
        ({"root": "[1, 2]", "top": {"defaults": "root.yaml"}}, "root.yaml must hold options by name, got list"),
        ({"root": "a: [", "top": {"defaults": "root.yaml"}}, "root.yaml is not YAML"),
    ],
)
def test_errors_name_the_file(write, capsys, files, said):
    assert main(["fit", "--config", str(write(**files))]) == 1
    assert said in capsys.readouterr().err


def test_a_run_needs_one_file_and_shows_the_whole(write, capsys):
    """Both spellings of the option; other files and texts stay as they are."""
    below = {"run_dir": "here", "model": {"world_model": {"base": {"layers": 3}}}, "trainer": {"callbacks": ["RolloutSampler"]}}
    above = {"model": {"world_model": {"base": {"heads": 2}}}, "trainer": {"callbacks+": ["ExportModels"]}}
    file = write(below=below, top={"defaults": "below.yaml", **above})
    arguments = ["fit", "--config", str(write(plain={"run_dir": "there"})), "--config={a: 1}", "x"]
    assert with_overlays(arguments) == arguments
    assert yaml.safe_load(with_overlays([f"--config={file}"])[0].removeprefix("--config="))["run_dir"] == "here"
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(file), "--model.world_model.base.vocab_size", "300", "--print_config"])
    shown = yaml.safe_load(capsys.readouterr().out)
    new = shown["model"]["world_model"]["base"]
    assert (new["layers"], new["heads"], new["vocab_size"]) == (3, 2, 300)
    assert [c["class_path"].rpartition(".")[2] for c in shown["trainer"]["callbacks"]] == ["RolloutSampler", "ExportModels"]
    assert "defaults" not in shown

"""The paper's settings of the physics and the web world (arXiv:2602.06130), as shipped."""

from pathlib import Path

import pytest
import yaml

from swirl_lightning.prompts import PromptTemplates

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("world", ["scienceworld", "mind2web"])
def test_the_papers_settings(world):
    settings = yaml.safe_load((CONFIGS / "paper" / f"{world}.yaml").read_text())
    model, data = settings["model"], settings["data"]["init_args"]
    assert model["world_model"]["base"] == "Qwen/Qwen2.5-3B-Instruct"
    assert model["world_model"]["storage"] == "separate"
    assert (data["batch_size"], data["labelled_fraction"], model["max_prompt_tokens"]) == (128, 0.5, 4096)
    for role in ("fwm", "idm"):
        assert (model[role]["group_size"], model[role]["grpo"]["beta"]) == (16, 0.1)
        assert model[role]["sampling"] == {"max_new_tokens": 4096, "temperature": 0.7, "top_p": 0.96}
        assert model[f"{role}_optimizer"]["init_args"]["lr"] == 5e-5
    assert model["lr_scheduler"]["init_args"] == {"warmup_steps": 25, "decay": "cosine", "floor": 0.0}
    assert data["path"] == yaml.safe_load((CONFIGS / "record" / f"{world}-paper.yaml").read_text())["out"]


@pytest.mark.parametrize("name", ["scienceworld.yaml", "mind2web.yaml", "paper/scienceworld.yaml", "paper/mind2web.yaml"])
def test_prompts_have_their_slots_and_real_line_ends(name):
    prompts = yaml.safe_load((CONFIGS / name).read_text())["model"]["prompts"]
    templates = PromptTemplates(**prompts)
    assert templates.chat is name.startswith("paper/")
    assert all("\n" in wording and "\\n" not in wording for wording in (*templates.fwm, *templates.idm))

"""Exported folders against the run's own models: merged and adapter-only, read by a process that has none of our code."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from swirl_lightning.cli import main
from swirl_lightning.commands.loading import inference_from_run
from swirl_lightning.types import Role

IDS = [[5, 7, 11, 13, 17, 19, 23], [29, 31, 37, 41, 43, 47, 53]]
READER = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "swirl_lightning":
            raise ImportError("our code must not be needed")
sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
ids, folders = json.loads(sys.argv[1])
logits = {}
for name, (base, adapter) in folders.items():
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, adapter)
    assert AutoTokenizer.from_pretrained(adapter or base).eos_token
    with torch.no_grad():
        logits[name] = model.eval()(torch.tensor(ids)).logits.tolist()
assert not any(name.startswith("swirl_lightning") for name in sys.modules)
print(json.dumps(logits))
"""


def read_elsewhere(folders):
    """Logits of folders, ``name: (base, adapter or None)``, computed without our package."""
    command = [sys.executable, "-c", READER, json.dumps([IDS, folders])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: torch.tensor(values) for name, values in json.loads(done.stdout).items()}


def own_logits(run):
    world_model = inference_from_run(run).world_model
    logits = {}
    for role in Role:
        with world_model.use(role) as model, torch.no_grad():
            logits[role.value] = model(torch.tensor(IDS)).logits
    return logits


@pytest.fixture
def finished(config, world, tmp_path):
    """A function that trains a run with weights in its base folder (an adapter needs a base that can be loaded)."""

    def run(storage, **more):
        base = world / "model"
        if storage == "adapters":
            from transformers import AutoModelForCausalLM, AutoTokenizer

            from swirl_lightning.world_model.loading import load_causal_lm

            base = tmp_path / "base"
            load_causal_lm(str(world / "model")).save_pretrained(base)
            AutoTokenizer.from_pretrained(world / "model").save_pretrained(base)
            assert AutoModelForCausalLM.from_pretrained(base) is not None
        changes = {"trainer__callbacks": [], "model__world_model__base": str(base), "model__world_model__storage": storage}
        assert main(config(**changes, **more)) == 0
        return tmp_path / "run", base

    return run


@pytest.mark.parametrize("storage", ["separate", "shared", "adapters"])
def test_exported_models_compute_what_the_run_computes(storage, finished, tmp_path):
    run, base = finished(storage)
    assert main(["export", str(run), str(tmp_path / "merged")]) == 0
    folders = {role.value: (str(tmp_path / "merged" / role.value), None) for role in Role}
    if storage == "adapters":
        assert main(["export", str(run), str(tmp_path / "adapters"), "--adapter_only", "true"]) == 0
        for role in Role:
            adapter = tmp_path / "adapters" / role.value
            assert (adapter / "adapter_config.json").is_file()
            assert not (adapter / "model.safetensors").exists()
            folders[f"{role.value} adapter"] = (str(base), str(adapter))
    own, read = own_logits(run), read_elsewhere(folders)
    for name, logits in read.items():
        torch.testing.assert_close(logits, own[name.split()[0]], rtol=1e-4, atol=1e-5)
    assert torch.equal(own["fwm"], own["idm"]) == (storage == "shared")


def test_adapters_on_both_ends_of_a_tied_model_are_trained_and_merged(finished, tmp_path):
    lora = {"r": 4, "target_modules": ["embed_tokens", "lm_head"]}
    run, base = finished("adapters", model__world_model__lora=lora)
    assert AutoConfig.from_pretrained(base).tie_word_embeddings
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for part, role in itertools.product(("embed_tokens.lora_embedding_A.{}", "lm_head.lora_B.{}.weight"), Role):  # begin at 0
        assert next(bool(tensor.any()) for name, tensor in state.items() if name.endswith(part.format(role.value)))
    assert main(["export", str(run), str(tmp_path / "merged")]) == 0
    for role, own in own_logits(run).items():
        read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged" / role, dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(read(torch.tensor(IDS)).logits, own, rtol=1e-5, atol=1e-5)


def test_adapters_only_of_a_run_without_adapters(finished, tmp_path, capsys):
    run, _ = finished("separate")
    assert main(["export", str(run), str(tmp_path / "out"), "--adapter_only", "true"]) == 1
    assert "storage 'separate' has no adapters" in capsys.readouterr().err

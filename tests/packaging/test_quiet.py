"""No command imports bitsandbytes, installed or not, or says a word before it has something to say."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = """
import importlib, sys
from swirl_lightning.cli import COMMANDS
for module, _ in COMMANDS.values():
    importlib.import_module(module)
import swirl_lightning.algorithm.module, swirl_lightning.callbacks, swirl_lightning.data
from transformers import LlamaConfig, LlamaForCausalLM
from swirl_lightning.world_model.adapters import LoraSettings, with_adapters
tiny = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
with_adapters(LlamaForCausalLM(tiny), LoraSettings(), ["fwm", "idm"], "tiny")
from swirl_lightning.internals import vq_model
vq_model()
import bitsandbytes
"""


def test_bitsandbytes_is_imported_only_where_it_is_asked_for(tmp_path):
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "bitsandbytes" / "__init__.py").write_text("import sys\nprint('imported', file=sys.stderr)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMANDS], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "imported\n")  # the last line alone asks for it


def test_peft_is_imported_where_bitsandbytes_is_hidden():
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "callbacks").rglob("*.py")]
    own = [file.name for file in sources if "from peft" in (text := file.read_text(encoding="utf-8")) or "import peft" in text]
    assert own == ["internals.py"]


def test_diffusers_is_imported_where_bitsandbytes_is_hidden():
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "callbacks").rglob("*.py")]
    taken = [file.name for file in sources if 'require("diffusers"' in file.read_text(encoding="utf-8")]
    assert taken == ["internals.py"]

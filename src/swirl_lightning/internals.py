"""What other libraries do without promising it, and we lean on: one place each, with its reason and its test."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LoraConfig", "LoraLayer", "PeftModel", "adapter_key", "get_peft_model", "hidden"]


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """Within it, an installed package looks as if it were not; nothing happens where it is imported already.

    peft (0.21) imports bitsandbytes wherever it is installed, asked for or not: seconds at every start, and on some
    processors a complaint of its own on stderr. It asks once whether the package is there, and remembers the answer.
    Can go when peft imports it for quantised layers only. Test: tests/packaging/test_quiet.py.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # what the import system takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[module]


with hidden("bitsandbytes"):  # everyone takes peft from here
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.import_utils import is_bnb_available
    from peft.tuners.lora import LoraLayer

    is_bnb_available()  # remembered from now on


def adapter_key(name: str, adapter: str) -> str | None:
    """A parameter's name without the name of its adapter; None where it is no tensor of that adapter.

    peft calls LoRA's tensors ``q_proj.lora_A.<adapter>.weight``, those of embeddings ``wte.lora_embedding_A.<adapter>``.
    Test: tests/world_model/test_adapters.py counts every tensor.
    """
    found = re.fullmatch(rf"(.*\.lora_\w+)\.{re.escape(adapter)}(\..+)?", name)
    return found[1] + (found[2] or "") if found else None

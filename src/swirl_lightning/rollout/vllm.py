"""Rollouts on a vLLM server, to which LoRA adapters are pushed whenever they have changed."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from typing_extensions import override

from swirl_lightning.distributed.sharding import device_of, is_sharded
from swirl_lightning.internals import LoraLayer, adapter_key
from swirl_lightning.rollout.base import Begun, RolloutEngine, RolloutRequest
from swirl_lightning.types import Trajectory

START = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve BASE --enable-lora --max-loras 2 --max-lora-rank R "
    "--logprobs-mode processed_logprobs"
)


class VllmEngine(RolloutEngine):
    """Samples on a vLLM server that runs the base model; for ``world_model.storage: adapters``.

    The server has kernels, and so probabilities, of its own. What it draws is scored again by the model that is trained, and
    the policy gradient is weighted with ``min(p / q, importance_cap)`` per token, p the trained model's probability of it and
    q the server's (truncated importance sampling).

    Args:
        url: URL of the server.
        importance_cap: Largest weight of a token.
        folder: Where adapters are put; server and trainer must see it under the same name. None is a temporary one.
        seconds: That the server may take for a prompt's group.
        concurrency: Prompts in flight.
        ahead: Draw the next batch while this one is trained on; it is a step old then, which the same weights correct.
    """

    def __init__(
        self,
        url: str = "http://localhost:8000",
        importance_cap: float = 2.0,
        folder: str | None = None,
        seconds: float = 600.0,
        concurrency: int = 64,
        ahead: bool = False,
    ) -> None:
        if importance_cap < 1:
            raise ValueError(f"engine.importance_cap must be at least 1, got {importance_cap}: equal models have weight 1")
        self.url, self.importance_cap, self.seconds, self.concurrency = url.rstrip("/"), importance_cap, seconds, concurrency
        self.looks_ahead, self._root = ahead, folder
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="rollout-ahead")
        self._begun: Begun | None = None
        self._pushed: dict[str, tuple[list[Tensor], str]] = {}  # adapter: its tensors as they were pushed, name on the server

    @override
    def check(self, model: PreTrainedModel) -> None:
        """Asks for whole LoRA adapters; see ``RolloutEngine``."""
        if is_sharded(model):
            raise ValueError("the vLLM engine reads adapters that every rank has whole: use trainer.strategy ddp, not fsdp")
        if not any(isinstance(module, LoraLayer) for module in model.modules()):
            raise ValueError("the vLLM engine is for LoRA adapters: set model.world_model.storage to adapters")

    @override
    @torch.no_grad()
    def generate(self, model: PreTrainedModel, request: RolloutRequest) -> Trajectory:
        """Draw what is asked for, or wait for it where it was begun; see ``RolloutEngine``.

        Raises:
            ValueError: if the model has no adapter or is sharded, or the constraint is no set of tokens.
            ConnectionError: if the server does not answer, or refuses.
        """
        if self._begun is not None and self._begun.answers(request):
            begun, self._begun = self._begun, None
            return replace(begun.drawn.result(), current=False)
        return self._draw(self._push(model), request, device_of(model))

    @override
    @torch.no_grad()
    def begin(self, model: PreTrainedModel, request: RolloutRequest) -> None:
        """Starts to draw with the adapter as it is; see ``RolloutEngine``."""
        if self._begun is not None:  # it was not asked for, but draws with the adapter that is going to be replaced
            self._begun.drawn.result()
        drawn = self._beside.submit(self._draw, self._push(model), replace(request, progress=None), device_of(model))
        self._begun = Begun.of(request, drawn)

    @override
    def close(self) -> None:
        self._begun = None

    def _draw(self, name: str, request: RolloutRequest, device: torch.device) -> Trajectory:
        """Draws with an adapter by its name on the server."""
        prompts, group_size, settings = request.prompts, request.group_size, _settings(request)
        copies = group_size if request.sampling.temperature > 0 else 1  # greedy members are all the same

        def draw(index: int) -> list[dict[str, Any]]:
            body = {"model": name, "prompt": list(prompts[index]), "n": copies, "seed": request.seeds[index], **settings}
            choices: list[dict[str, Any]] = self._ask("/v1/completions", body)["choices"]
            if request.progress is not None:
                request.progress(group_size)
            return sorted(choices, key=lambda choice: choice["index"]) * (group_size // copies)

        with ThreadPoolExecutor(max(1, min(self.concurrency, len(prompts)))) as pool:
            groups = list(pool.map(draw, range(len(prompts))))
        return _trajectory(request, groups, device)

    # ------------------------------------------------------------------ adapters

    def _push(self, model: PreTrainedModel) -> str:
        """Name on the server of the model's active adapter, as it is now."""
        self.check(model)
        layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
        adapter = layer.active_adapters[0]
        named = ((adapter_key(name, adapter), parameter) for name, parameter in model.named_parameters())
        tensors = {f"base_model.model.{key}": parameter for key, parameter in named if key is not None}
        before = self._pushed.get(adapter)
        if before is not None and all(map(torch.equal, tensors.values(), before[0])):
            return before[1]
        name = f"{adapter}-{secrets.token_hex(6)}"  # new at every push: the server keeps prefixes by the adapter's name
        folder = self._folder() / name
        folder.mkdir(parents=True)
        save_file(
            {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, folder / "adapter_model.safetensors"
        )
        model.peft_config[adapter].save_pretrained(str(folder))  # type: ignore[index, union-attr]
        self._ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        self._pushed[adapter] = ([tensor.detach().clone() for tensor in tensors.values()], name)
        if before is not None:
            if self._begun is not None:
                wait([self._begun.drawn])  # it may draw with the one that goes
            self._ask("/v1/unload_lora_adapter", {"lora_name": before[1]})
            shutil.rmtree(self._folder() / before[1])  # not before: the server drops what it does not use, and reads it again
        return name

    def _folder(self) -> Path:
        if self._root is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="swirl-adapters-")  # gone at the end of the process
            self._root = self._temporary.name
        return Path(self._root)

    # ------------------------------------------------------------------ HTTP

    def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.seconds) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace")[:500]
            raise ConnectionError(f"the vLLM server at {self.url}{path} refused ({error.code}): {reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(
                f"no vLLM server answers at {self.url} ({error}); start one in an environment that has vLLM: {START}"
            ) from error
        return json.loads(text) if text.startswith("{") else text


def _settings(request: RolloutRequest) -> dict[str, Any]:
    """Sampling settings in the server's words."""
    params, constraint = request.sampling, request.constraint
    settings: dict[str, Any] = {
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "ignore_eos": True,
        "stop_token_ids": list(request.stop_ids),
        "logprobs": 0,
        "return_token_ids": True,
        "add_special_tokens": False,
    }
    if constraint is not None:
        if not constraint.static:
            raise ValueError(
                "the vLLM engine can hold a role to a set of tokens, not to a list of choices or a grammar: drop the role's "
                "constraint, or leave model.engine out"
            )
        settings["allowed_token_ids"] = constraint.allowed(()).nonzero().flatten().tolist()
    return settings


def _trajectory(request: RolloutRequest, groups: Sequence[Sequence[dict[str, Any]]], device: torch.device) -> Trajectory:
    members = [choice for group in groups for choice in group]
    longest = max((len(choice["token_ids"]) for choice in members), default=1)
    shape = (len(request.prompts), request.group_size, longest)

    def padded(rows: Sequence[Sequence[float]], fill: float, dtype: torch.dtype) -> Tensor:
        tensor = torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows], dtype=dtype)
        return tensor.view(shape).to(device)

    return Trajectory(
        prompts=tuple(tuple(prompt) for prompt in request.prompts),
        completions=padded([choice["token_ids"] for choice in members], request.pad_id, torch.int64),
        mask=padded([[1] * len(choice["token_ids"]) for choice in members], 0, torch.bool),
        logprobs=padded([choice["logprobs"]["token_logprobs"] for choice in members], 0.0, torch.float32),
        finished=torch.tensor([choice["finish_reason"] == "stop" for choice in members]).view(shape[:2]).to(device),
    )

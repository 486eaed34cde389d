"""The twin in one file and SwirlModule train the same weights, phase by phase."""

import json
import random
from functools import partial

import lightning as L
import pytest
from torch.optim import SGD
from transformers import AutoConfig, AutoTokenizer, LlamaConfig

from howto import swirl_in_one_file as twin
from swirl_lightning.algorithm.module import SwirlModule
from swirl_lightning.algorithm.objectives import GrpoConfig
from swirl_lightning.algorithm.schedule import PhaseSchedule
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.codecs.bpe import train_tokenizer
from swirl_lightning.data import TransitionDataModule
from swirl_lightning.rollout.sampling import row_noise
from swirl_lightning.types import Phase, Role, SamplingParams, Transition
from swirl_lightning.world_model import WorldModelConfig
from swirl_lightning.world_model.inference import pair_seed
from swirl_lightning.world_model.loading import load_causal_lm

RATE, SEED = 0.02, 5
BETA = 20.0  # in three steps a policy does not get far from its reference
OPTIMIZER = partial(SGD, momentum=0.9)  # the first steps of Adam turn the rounding of tiny gradients into whole steps


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Counting in words: an action adds one or two."""
    folder, rng = tmp_path_factory.mktemp("counting"), random.Random(0)
    rows = []
    for episode in range(12):
        at = rng.randrange(4)
        for step in range(3):
            by = rng.choice([1, 2])
            rows.append(Transition(f"at {at}", f"at {at + by}", f"add {by}", episode=f"e{episode}", step=step))
            at += by
    fields = ("state", "next_state", "action", "episode", "step")
    (folder / "log.jsonl").write_text("".join(json.dumps({f: getattr(row, f) for f in fields}) + "\n" for row in rows))
    tokenizer = train_tokenizer(rows, 280)
    tokenizer.save_pretrained(folder)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=96, **sizes, **ids).save_pretrained(
        folder
    )
    assert AutoConfig.from_pretrained(folder).model_type == "llama"
    return folder


class Watch(L.Callback):
    """Keeps the batches of every epoch, and the weights of both roles after the warm-up and after every phase."""

    def __init__(self):
        self.batches, self.weights = {}, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.setdefault(trainer.current_epoch, []).append(batch.labelled or batch.unlabelled)

    def on_train_epoch_start(self, trainer, module):
        if module.phase is not Phase.WARMUP:
            self._look(module)

    def on_train_end(self, trainer, module):
        self._look(module)

    def _look(self, module):
        state = {role: module.world_model.causal_lm(role).state_dict() for role in Role}
        self.weights.append({role: {name: p.clone() for name, p in weights.items()} for role, weights in state.items()})


def test_both_train_the_same_weights(world, tmp_path):
    optimizer = partial(OPTIMIZER, lr=RATE)
    watch, role = Watch(), {"group_size": 3, "grpo": GrpoConfig(beta=BETA), "truncated": "reward"}
    module = SwirlModule(
        WorldModelConfig(str(world), dtype="float32", seed=1),
        max_prompt_tokens=64,
        schedule=PhaseSchedule(warmup_epochs=2, iterations=2),
        fwm=RoleSettings(SamplingParams(max_new_tokens=12), **role),
        idm=RoleSettings(SamplingParams(max_new_tokens=8), **role),
        warmup_optimizer=optimizer,
        fwm_optimizer=optimizer,
        idm_optimizer=optimizer,
        seed=SEED,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=6,
        limit_val_batches=0,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=tmp_path,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=TransitionDataModule(str(world / "log.jsonl"), warmup_batch_size=4, batch_size=4))

    def noise(pair, epoch, purpose, members, tokens):
        return row_noise([pair_seed(SEED, pair, purpose, epoch)], members, tokens)[0]

    untrained = load_causal_lm(str(world), dtype="float32", seed=1)
    settings = twin.Settings(
        beta=BETA, group_size=3, max_state_tokens=12, max_action_tokens=8, optimizer=OPTIMIZER, learning_rate=RATE
    )
    warmup = [watch.batches[epoch] for epoch in range(2)]
    phases = twin.swirl(untrained, AutoTokenizer.from_pretrained(world), warmup, watch.batches.__getitem__, settings, noise)
    names, before = [], load_causal_lm(str(world), dtype="float32", seed=1).state_dict()
    for (name, fwm, idm), weights in zip(phases, watch.weights, strict=True):
        names.append(name)
        for role, model in ((Role.FWM, fwm), (Role.IDM, idm)):
            for key, mine in model.state_dict().items():
                assert float((mine - weights[role][key]).abs().max()) < 1e-5, f"{name}, {role}: {key}"
        assert max(float((p - before[key]).abs().max()) for key, p in fwm.state_dict().items()) > 1e-3
    assert names == ["warm-up", "phase_one", "phase_two", "phase_one", "phase_two"]
    assert all(hasattr(pair, "action") for batch in warmup[0] for pair in batch)
    assert not any(hasattr(pair, "action") for epoch in range(2, 6) for batch in watch.batches[epoch] for pair in batch)

"""Checkpoints in shards: rows written by two ranks are read by any number; a checkpoint is whole or not there; export."""

import os

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from torch.distributed.tensor.placement_types import Shard

from swirl_lightning.commands.loading import inference_from_run
from swirl_lightning.distributed import shards
from swirl_lightning.distributed.checkpointing import AtomicCheckpointIO
from swirl_lightning.types import Role
from tests.distributed.harness import end, processes, run_together, seen, settings
from tests.distributed.test_resume_elsewhere import CHANGES, SHARDS

WEIGHTS = {
    "model/even": torch.arange(12.0).view(4, 3),
    "model/odd": torch.arange(5),
    "model/single": torch.ones(1, 2).bfloat16(),
}
PLAIN = {"model/flag": torch.tensor(True), "optimizer/0/3/step": torch.tensor(7.0)}


def write_rows(rank, port, folder, place):
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    spread = {name: distribute_tensor(weight, mesh, [Shard(0)]) for name, weight in WEIGHTS.items()}
    shards.write(place, spread | PLAIN, rank, 2)
    dist.barrier()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint file whose tensors two ranks have written."""
    folder = tmp_path_factory.mktemp("shards")
    place = shards.new_folder(folder / "last.ckpt")
    ranks = processes(folder, write_rows, place)
    assert end(ranks, 60) == 0
    assert [process.exitcode for process in ranks] == [0, 0]
    optimizer = {"state": {3: {"momentum": None}}, "param_groups": [{"lr": 0.1}]}
    whole = {"state_dict": {}, "optimizer_states": [optimizer], shards.FOLDER: place.name, "global_step": 4}
    AtomicCheckpointIO().save_checkpoint(whole, folder / "last.ckpt")
    return folder / "last.ckpt"


def test_whole_tensors_are_read_back(checkpoint):
    loaded = AtomicCheckpointIO().load_checkpoint(checkpoint)
    assert loaded["global_step"] == 4
    assert loaded["optimizer_states"][0]["state"] == {3: {"momentum": None, "step": torch.tensor(7.0)}}
    expected = {name.removeprefix("model/"): weight for name, weight in (WEIGHTS | PLAIN).items() if name.startswith("model/")}
    assert loaded["state_dict"].keys() == expected.keys()
    for name, weight in expected.items():
        assert loaded["state_dict"][name].dtype == weight.dtype
        assert torch.equal(loaded["state_dict"][name], weight)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_any_number_of_ranks_reads_its_rows(ranks, checkpoint):
    stored = shards.join(torch.load(checkpoint, weights_only=True), checkpoint, whole=False)["state_dict"]
    for name in ("even", "odd", "single"):
        weight = WEIGHTS[f"model/{name}"]
        assert stored[name].shape == weight.shape
        assert stored[name].dtype == weight.dtype
        size = -(-len(weight) // ranks)
        rows = [stored[name][rank * size : (rank + 1) * size] for rank in range(ranks)]
        assert torch.equal(torch.cat([part for part in rows if len(part)]), weight)


def test_a_missing_part_is_noticed(checkpoint, tmp_path):
    broken = tmp_path / "last.ckpt"
    broken.write_bytes(checkpoint.read_bytes())
    (folder,) = checkpoint.parent.glob("*.shards-*")
    (tmp_path / folder.name).mkdir()
    (tmp_path / folder.name / "rank-00001.safetensors").write_bytes((folder / "rank-00001.safetensors").read_bytes())
    with pytest.raises(ValueError, match="is incomplete: 1 files of ranks are there"):
        AtomicCheckpointIO().load_checkpoint(broken)


def test_a_folder_stays_until_no_checkpoint_refers_to_it(tmp_path):
    saver, file = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    for number in range(2):
        assert shards.new_folder(file).name == f"last.ckpt.shards-{number}"
        shards.new_folder(file).mkdir()
    (tmp_path / "step-1.ckpt.shards-0").mkdir()  # of a checkpoint that was removed
    assert len(list(tmp_path.iterdir())) == 3
    saver.save_checkpoint({shards.FOLDER: "last.ckpt.shards-1"}, file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.shards-1"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="The previous checkpoint is intact"):
        shards.write(tmp_path / "file" / "x.shards-0", PLAIN, 0, 1)


@pytest.mark.slow
def test_export_from_shards(world, tmp_path):
    arguments = settings(world, tmp_path / "run", strategy=SHARDS, devices=2, checkpoint__keep=2, **CHANGES)
    statuses, logs = run_together(tmp_path / "logs", [(arguments, None)])
    assert statuses == [0], logs
    folder = tmp_path / "run" / "checkpoints"
    kept = sorted(path.name for path in folder.glob("step-*.ckpt"))
    assert len(kept) == 2
    assert {path.name.rpartition(".shards-")[0] for path in folder.glob("*.shards-*")} >= set(kept)
    world_model = inference_from_run(tmp_path / "run").world_model
    for role, weights in zip(Role, seen(tmp_path / "run")["weights"][-1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(world_model.role_parameters(role), weights, strict=True))

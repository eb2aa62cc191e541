from __future__ import annotations

from pathlib import Path

import pytest
import torch

from megagrow.checkpoint import sharded
from megagrow.checkpoint.sharded import TrainedModel
from megagrow.config.schema import OptimizerConfig, ParallelConfig
from megagrow.conversion.distributed import CheckpointReader
from megagrow.conversion.layout import check
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.errors import CheckpointError
from megagrow.model.build import build_optimizer, wrap_ddp
from megagrow.model.initialisation import sharded_tensors
from tests.distributed import World
from tests.model.job import Job, build


def save(job: Job, folder: Path) -> dict[str, torch.Tensor]:
    """Saves a freshly drawn model; its whole tensors, where this rank has them all."""
    chunks = wrap_ddp(build(job), job.parallel)
    optimizer = build_optimizer(chunks, OptimizerConfig(), job.parallel, job.precision)  # type: ignore[arg-type]
    sharded.prepare(optimizer)
    modules = [chunk.module for chunk in chunks]
    sharded.save(TrainedModel(chunks=modules, optimizer=optimizer, updates=0), folder)
    return {each.key: each.data.detach().clone() for each in sharded_tensors(modules[0])}


@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_tensors_are_read_whole_whatever_they_were_saved_under(
    style: str, tmp_path: Path, alone: None, world2: World
) -> None:
    job = Job(style=style, layers=2, precision="bf16", qk_norm=True, qkv_bias=True)
    parallel = ParallelConfig(tensor=2, sequence_parallel=True)
    (tmp_path / "two").mkdir()
    world2.run(save, Job(**{**vars(job), "parallel": parallel}), tmp_path / "two")
    (tmp_path / "one").mkdir()
    expected = save(job, tmp_path / "one")
    for folder in ("one", "two"):
        reader, masters = (
            CheckpointReader(tmp_path / folder, masters=masters) for masters in (False, True)
        )
        layout = megatron_layout(job.shape)
        check(reader, layout, folder, ignored=lambda key: key.startswith("optimizer."))
        assert set(layout.by_key) == set(expected)
        for key, tensor in expected.items():
            assert torch.equal(reader.tensor(key), tensor), key
            assert reader.dtype(key) == torch.bfloat16
            assert masters.dtype(key) == torch.float32
            assert torch.equal(masters.tensor(key).bfloat16(), tensor), key


def test_damage_is_named(tmp_path: Path, alone: None) -> None:
    (tmp_path / "one").mkdir()
    save(Job(layers=2), tmp_path / "one")
    reader = CheckpointReader(tmp_path / "one")
    key = "decoder.final_layernorm.weight"
    for path in (tmp_path / "one").glob("*.distcp"):
        path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(CheckpointError, match=rf"{key} is damaged"):
        reader.tensor(key)
    (tmp_path / "one" / ".metadata").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="its index is damaged"):
        CheckpointReader(tmp_path / "one")
    (tmp_path / "one" / ".metadata").unlink()
    with pytest.raises(CheckpointError, match="reading failed"):
        CheckpointReader(tmp_path / "one")

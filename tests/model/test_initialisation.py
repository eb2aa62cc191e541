from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from megagrow.config.schema import InitConfig, ParallelConfig
from megagrow.model.initialisation import initialise, sharded_tensors, standard_deviation
from megagrow.runtime import groups
from tests.distributed import World
from tests.model.job import SEED, Job, build, weights

QKV = "decoder.layers.1.self_attention.linear_qkv.weight"
PROJ = "decoder.layers.1.self_attention.linear_proj.weight"
DOWN = "decoder.layers.1.mlp.linear_fc2.weight"
UP = "decoder.layers.1.mlp.linear_fc1.weight_v"
EMBEDDING = "embedding.word_embeddings.weight"

LAYOUTS = {
    "tp2": (2, Job(parallel=ParallelConfig(tensor=2))),
    "tp2_sp": (2, Job(parallel=ParallelConfig(tensor=2, sequence_parallel=True))),
    "pp2": (2, Job(parallel=ParallelConfig(pipeline=2))),
    "pp2_uneven": (2, Job(parallel=ParallelConfig(pipeline=2), layout=(1, 3))),
    "pp2_vp2": (2, Job(parallel=ParallelConfig(pipeline=2, virtual_pipeline=2))),
    "pp2_tied": (2, Job(style="gpt2", parallel=ParallelConfig(pipeline=2))),
    "tp2_qk_norm": (2, Job(qk_norm=True, qkv_bias=True, parallel=ParallelConfig(tensor=2))),
    "dp2": (2, Job()),
    "tp2_pp2": (4, Job(style="gpt2", tied=False, parallel=ParallelConfig(tensor=2, pipeline=2))),
}


def whole(job: Job) -> dict[str, torch.Tensor]:
    """Every tensor of the model, built on this process alone."""
    tensors = {
        key: data.clone()
        for key, _, _, data in weights(replace(job, parallel=ParallelConfig(), layout=None))
    }
    groups.tear_down()
    return tensors


@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_do_not_depend_on_the_layout(
    name: str, alone: None, request: pytest.FixtureRequest
) -> None:
    size, job = LAYOUTS[name]
    world: World = request.getfixturevalue(f"world{size}")
    expected = whole(job)
    seen = {key: torch.zeros(tensor.shape, dtype=torch.bool) for key, tensor in expected.items()}
    for rank in world.run(weights, job):
        for key, shape, offset, data in rank:
            assert shape == tuple(expected[key].shape)
            part = tuple(slice(a, a + n) for a, n in zip(offset, data.shape, strict=True))
            assert torch.equal(data, expected[key][part]), key
            seen[key][part] = True
    assert all(bool(mask.all()) for mask in seen.values())


def test_bf16_weights_are_the_rounded_fp32_ones(alone: None) -> None:
    exact = whole(Job())
    for key, data in whole(Job(precision="bf16")).items():
        assert data.dtype == torch.bfloat16
        assert torch.equal(data, exact[key].bfloat16()), key


def test_each_tensor_has_its_own_values_whatever_the_depth(alone: None) -> None:
    two, four = whole(Job(layers=2)), whole(Job(layers=4))
    assert torch.equal(two[QKV], four[QKV])
    assert torch.equal(two["output_layer.weight"], four["output_layer.weight"])
    assert not torch.equal(two[DOWN], four[DOWN])  # scaled by the depth
    drawn = [data for key, data in four.items() if data.dim() > 1 and "linear_qkv" in key]
    assert len(drawn) == 4
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert not torch.equal(four[UP], four[UP.replace("_v", "_w")])


def test_the_seed_changes_them_and_only_chooses_them(alone: None) -> None:
    job = Job()
    chunks = build(job)
    before = {tensor.key: tensor.data.clone() for tensor in sharded_tensors(chunks[0])}
    chosen = [key for key in before if ".layers.1." in key]
    initialise(chunks, job.shape, job.init, SEED + 1, only=lambda key: ".layers.1." in key)
    for tensor in sharded_tensors(chunks[0]):
        same = tensor.key not in chosen or tensor.data.dim() == 1
        assert torch.equal(tensor.data, before[tensor.key]) is same, tensor.key
    initialise(chunks, job.shape, job.init, SEED)
    assert all(torch.equal(each.data, before[each.key]) for each in sharded_tensors(chunks[0]))


@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_vectors_are_ones_and_zeros(style: str, alone: None) -> None:
    vectors = {key: data for key, data in whole(Job(style=style)).items() if data.dim() == 1}
    assert len(vectors) == (9 if style == "llama" else 4 * 8 + 2)
    for key, data in vectors.items():
        gain = "norm" in key and key.endswith("weight")
        assert torch.equal(data, torch.full_like(data, float(gain))), key


def test_norms_of_heads_are_ones_and_biases_of_heads_zeros(alone: None) -> None:
    vectors = {
        key: data
        for key, data in whole(Job(qk_norm=True, qkv_bias=True)).items()
        if data.dim() == 1
    }
    assert len(vectors) == 9 + 4 * 3
    for key, data in vectors.items():
        assert torch.equal(data, torch.full_like(data, float(key.endswith("weight")))), key


@pytest.mark.parametrize(
    ("scheme", "key", "expected"),
    [
        ("megatron", EMBEDDING, 0.05),
        ("megatron", QKV, 0.05),
        ("megatron", UP, 0.05),
        ("megatron", PROJ, 0.05 / math.sqrt(8)),
        ("megatron", DOWN, 0.05 / math.sqrt(8)),
        ("gstack", EMBEDDING, math.sqrt(2 / (5 * 32))),
        ("gstack", QKV, math.sqrt(2 / (5 * 32))),
        ("gstack", UP, math.sqrt(2 / (5 * 32))),
        ("gstack", PROJ, math.sqrt(2 / (5 * 32))),
        ("gstack", DOWN, 1 / (math.sqrt(128) * 4)),
    ],
)
def test_schemes(scheme: str, key: str, expected: float, alone: None) -> None:
    job = Job(init=InitConfig(scheme=scheme, std=0.05))  # type: ignore[arg-type]
    data = whole(job)[key]
    assert standard_deviation(key, data.shape, job.shape, job.init) == pytest.approx(expected)
    assert data.std().item() == pytest.approx(expected, rel=0.06)
    assert abs(data.mean().item()) < 4 * expected / math.sqrt(data.numel())

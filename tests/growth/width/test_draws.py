from __future__ import annotations

import pytest
import torch

from megagrow.config.schema import InitConfig
from megagrow.growth.width.draws import Draws, standard_deviation
from megagrow.kernels.normal import normals
from megagrow.model import initialisation
from megagrow.model.tensors import Role, TensorName, tensor_shape
from megagrow.runtime import seeds
from tests.growth.width.reference import model_shape

UP = TensorName(role=Role.UP, layer=1)
CPU = torch.device("cpu")


def test_values_are_those_of_the_counters_of_the_whole_tensor() -> None:
    drawn = Draws(seed=5).normal(UP, (7, 11), 0.5, CPU)
    key = seeds.seed_for(5, "width", "MLP up", 1, 0)
    assert drawn.flatten().tolist() == (normals(key, 0, 77) * 0.5).tolist()


def test_values_depend_on_seed_and_name() -> None:
    names = [UP, TensorName(role=Role.UP, layer=0), TensorName(role=Role.GATE, layer=1)]
    drawn = [Draws(seed=seed).normal(name, (3,), 1.0, CPU) for seed in (1, 2) for name in names]
    assert len({tuple(values.tolist()) for values in drawn}) == len(drawn)
    assert torch.equal(drawn[0], Draws(seed=1).normal(UP, (3,), 1.0, CPU))


@pytest.mark.parametrize("scheme", ["megatron", "gstack"])
@pytest.mark.parametrize(
    ("role", "key"),
    [
        (Role.TOKEN_EMBEDDING, "embedding.word_embeddings.weight"),
        (Role.OUTPUT, "output_layer.weight"),
        (Role.QUERY, "decoder.layers.0.self_attention.linear_qkv.weight"),
        (Role.ATTENTION_OUTPUT, "decoder.layers.0.self_attention.linear_proj.weight"),
        (Role.UP, "decoder.layers.0.mlp.linear_fc1.weight_v"),
        (Role.DOWN, "decoder.layers.0.mlp.linear_fc2.weight"),
    ],
)
def test_deviations_are_those_of_a_new_model(scheme: str, role: Role, key: str) -> None:
    init = InitConfig(scheme="gstack" if scheme == "gstack" else "megatron", std=0.03)
    shape = model_shape(8, *[(4, 2, 4, 24)] * 3)
    size = tensor_shape(TensorName(role=role, layer=0), shape)
    expected = initialisation.standard_deviation(key, size, shape, init)
    assert standard_deviation(role, size[1], shape, init) == expected

"""A model whose layers differ, against plain PyTorch and over all layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from megagrow.config.schema import InitConfig, LayerScalingConfig, LayerTable
from megagrow.errors import LayoutError
from megagrow.model.transformer_config import transformer_config
from megagrow.runtime import groups
from tests.model.job import Job, train
from tests.model.test_build import (
    LAYOUTS,
    check_against_reference,
    check_layout,
    loss_and_gradients,
)

CROWN = LayerScalingConfig(
    variant="crown",
    ffn_multipliers=(1.0, 4.0, 1.0),
    qkv_multipliers=(0.5, 2.0, 1.0),
    frame_multipliers=(3.0, 1.0),
    queries_per_group=2,
    head_multiple=4,
    ffn_multiple=16,
)
"""Of 32 wide layers with heads of 4."""

SCALED = Job(heads=8, key_heads=8, layers=4, layer_scaling=CROWN)
TABLE = LayerTable(
    num_attention_heads=(4, 8, 2, 6),
    num_query_groups=(2, 8, 2, 2),
    ffn_hidden_size=(48, 16, 80, 32),
)
"""With every head divisible by 2, and KV heads that share from 1 to 3 query heads."""


def scaled(job: Job) -> Job:
    """`job` with layers of four shapes."""
    return replace(
        job, heads=4, layers=4, layer_scaling=LayerScalingConfig(variant="table", table=TABLE)
    )


def test_the_profile_gives_the_layers_that_the_tests_are_about() -> None:
    # `key_heads` and `queries_per_group` say the same of the model; a configuration has one.
    layers = SCALED.shape.layers
    assert [layer.num_attention_heads for layer in layers] == [8, 16, 16, 8]
    assert [layer.ffn_hidden_size for layer in layers] == [96, 128, 128, 96]
    assert len(set(scaled(Job()).shape.layers)) == 4


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradients_are_the_references(style: str, tied: bool, alone: None) -> None:
    check_against_reference(scaled(Job(style=style, tied=tied, init=InitConfig(std=0.2))))


def test_norms_biases_and_scaled_frequencies_are_the_references(alone: None) -> None:
    job = Job(qkv_bias=True, qk_norm=True, rotary_scaling=8.0, init=InitConfig(std=0.2))
    check_against_reference(scaled(job))


@pytest.fixture(scope="module")
def one_process() -> dict[str, list[tuple[float, float]]]:
    """Losses and norms of one process, filled as they are needed."""
    return {}


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "name", ["tp2", "tp2_sp", "pp2", "pp2_uneven", "pp2_vp2", "dp2_overlap", "tp2_sp_pp2"]
)
def test_training_is_the_same_in_every_layout(
    name: str,
    style: str,
    alone: None,
    one_process: dict[str, list[tuple[float, float]]],
    request: pytest.FixtureRequest,
) -> None:
    check_layout(name, scaled(Job(style=style)), one_process, request)


@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_equal_layers_train_as_an_isotropic_model_does_bit_for_bit(style: str, alone: None) -> None:
    plain = Job(style=style)
    layer = plain.shape.layers[0]
    table = LayerTable(
        num_attention_heads=(layer.num_attention_heads,) * plain.layers,
        ffn_hidden_size=(layer.ffn_hidden_size,) * plain.layers,
    )
    equal = replace(plain, layer_scaling=LayerScalingConfig(variant="table", table=table))
    assert equal.shape == plain.shape
    config = transformer_config(equal.shape, equal.model, equal.parallel, "fp32")
    assert config.heterogeneous_block_specs  # megatron-core's other way of building
    found = train(equal)
    groups.tear_down()
    assert found == train(plain)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_changes_nothing(recompute: str, alone: None) -> None:
    job = scaled(Job(dropout=0.2))
    loss, gradients = loss_and_gradients(job)
    parallel = replace(job.parallel, recompute=recompute)
    again, found = loss_and_gradients(replace(job, parallel=parallel))
    assert loss.equal(again)
    assert gradients.keys() == found.keys()
    assert all(gradients[name].equal(found[name]) for name in gradients)


def test_a_layer_that_does_not_divide_is_refused_by_its_size(alone: None) -> None:
    job = scaled(Job(parallel=LAYOUTS["tp2"][1]))
    table = replace(TABLE, num_query_groups=(2, 8, 1, 2))
    odd = replace(job, layer_scaling=LayerScalingConfig(variant="table", table=table))
    with pytest.raises(LayoutError, match="num_query_groups=1 is not divisible by tensor=2"):
        transformer_config(odd.shape, odd.model, odd.parallel, "fp32")
    groups.tear_down()

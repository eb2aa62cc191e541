"""Layers of different shapes against tensor parallelism: what is refused, and what mends it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megagrow.config import RunConfig
from megagrow.errors import LayoutError
from megagrow.model.shape import model_shape
from megagrow.plan.world import check_shapes
from tests.plan.configs import config_of, stage

MODEL: dict[str, Any] = {"ffn_hidden_size": None, "num_attention_heads": 8, "hidden_size": 256}


def split(tensor: int, scaling: dict[str, Any], layers: int = 3, **model: Any) -> RunConfig:
    return config_of(
        stage(layers, parallel={"tensor": tensor}),
        model={**MODEL, **model, "layer_scaling": scaling},
    )


VANILLA: dict[str, Any] = {"variant": "vanilla", "ffn_multipliers": [1, 2], "ffn_multiple": 64}
HEADS: dict[str, Any] = {"variant": "vanilla", "qkv_multipliers": [0.5, 1]}


@pytest.mark.parametrize(
    ("scaling", "model", "message", "mend"),
    [
        (
            {**VANILLA, "ffn_multiple": 10}, {},
            "layer 2: the FFN width 510 is not divisible by tensor parallel 4; set "
            "layer_scaling.ffn_multiple to 20",
            {"scaling": {"ffn_multiple": 20}},
        ),
        (
            {"variant": "table", "table": {"ffn_hidden_size": [64, 64, 66]}}, {},
            "layer 2: the FFN width 66 is not divisible by tensor parallel 4; set it to 64 in the "
            "table",
            {"scaling": {"table": {"ffn_hidden_size": [64, 64, 64]}}},
        ),
        (
            HEADS, {"ffn_hidden_size": 510},
            "layer 0: the FFN width 510 is not divisible by tensor parallel 4; set "
            "model.ffn_hidden_size to 508",
            {"model": {"ffn_hidden_size": 508}, "scaling": {"head_multiple": 4}},
        ),
        (
            {**HEADS, "queries_per_group": 2}, {"ffn_hidden_size": 512},
            "layer 0: 4 heads in 2 key/value groups are not divisible by tensor parallel 4; set "
            "layer_scaling.head_multiple to 8",
            {"scaling": {"head_multiple": 8}},
        ),
        (
            HEADS, {"ffn_hidden_size": 512},
            "layer 1: 6 heads in 6 key/value groups are not divisible by tensor parallel 4; set "
            "layer_scaling.head_multiple to 4",
            {"scaling": {"head_multiple": 4}},
        ),
        (
            {**HEADS, "head_multiple": 2}, {"ffn_hidden_size": 512, "num_query_groups": 2},
            "layer 0: 4 heads in 2 key/value groups are not divisible by tensor parallel 4; set "
            "num_query_groups to 4 and layer_scaling.head_multiple to 4",
            {"model": {"num_query_groups": 4}, "scaling": {"head_multiple": 4}},
        ),
        (
            HEADS, {"ffn_hidden_size": 512, "num_query_groups": 2},
            "layer 0: 4 heads in 2 key/value groups are not divisible by tensor parallel 4; set "
            "num_query_groups to 4",
            {"model": {"num_query_groups": 4}},
        ),
        (
            VANILLA, {"num_attention_heads": 2},
            "layer 0: 2 heads in 2 key/value groups are not divisible by tensor parallel 4; set "
            "num_attention_heads to 4",
            {"model": {"num_attention_heads": 4}},
        ),
        (
            {"variant": "table", "table": {"num_attention_heads": [8, 6, 8]}},
            {"ffn_hidden_size": 512},
            "layer 1: 6 heads in 6 key/value groups are not divisible by tensor parallel 4; set "
            "num_query_groups to a multiple of 4",
            {"scaling": {"table": {"num_attention_heads": [8, 4, 8]}}},
        ),
    ],
    ids=["ffn", "ffn table", "ffn fixed", "shared", "heads", "groups", "groups alone",
         "heads fixed", "heads table"],
)  # fmt: skip
def test_a_layer_that_cannot_be_split_is_named_and_the_offer_mends_it(
    scaling: dict[str, Any], model: dict[str, Any], message: str, mend: dict[str, Any]
) -> None:
    with pytest.raises(LayoutError) as error:
        check_shapes(split(4, scaling, **model))
    assert str(error.value).startswith(f"stage 'stage0', {message}, or tensor to ")
    mended = {**scaling, **mend.get("scaling", {})}
    check_shapes(split(4, mended, **{**model, **mend.get("model", {})}))


@given(
    st.sampled_from([1, 2, 3, 4, 8]), st.sampled_from([8, 12, 64, 100]), st.sampled_from([1, 2, 4]),
    st.sampled_from(["vanilla", "framed", "reverse"]),
)  # fmt: skip
def test_exactly_the_layers_that_can_be_split_pass(
    tensor: int, multiple: int, shared: int, variant: str
) -> None:
    order = slice(None, None, -1) if variant == "reverse" else slice(None)
    config = split(
        tensor,
        {
            "variant": variant, "ffn_multipliers": [0.3, 3.1][order],
            "qkv_multipliers": [0.3, 1.4][order], "ffn_multiple": multiple,
            "queries_per_group": shared,
        },
        layers=7, vocab_padding=tensor,
    )  # fmt: skip
    layers = model_shape(config.stages[0].model, 7).layers
    fits = all(
        layer.ffn_hidden_size % tensor == 0 and layer.num_query_groups % tensor == 0
        for layer in layers
    )
    if fits:
        check_shapes(config)
    else:
        with pytest.raises(LayoutError, match=r"^stage 'stage0', layer \d: .*tensor parallel"):
            check_shapes(config)

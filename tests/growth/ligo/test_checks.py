from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from megagrow.errors import ConfigError
from megagrow.growth.ligo.checks import check_ligo
from megagrow.model.shape import ModelShape
from tests.growth.ligo.shapes import Pair, pairs
from tests.growth.width.reference import model_shape

LAYER = (4, 2, 4, 6)


def llama(hidden: int = 8, layers: int = 2, layer: tuple[int, int, int, int] = LAYER) -> ModelShape:
    return model_shape(hidden, *[layer] * layers)


@given(pairs())
def test_deeper_and_wider_shapes_are_accepted(pair: Pair) -> None:
    check_ligo(*pair)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (llama(hidden=6), "hidden_size cannot shrink from 8 to 6; at least 8"),
        (llama(layers=1), "number of layers cannot shrink from 2 to 1; at least 2"),
        (llama(layer=(4, 2, 4, 5)), "ffn_hidden_size cannot shrink from 6 to 5; at least 6"),
        (llama(layer=(2, 2, 4, 6)), "num_attention_heads cannot shrink from 4 to 2; at least 4"),
        (llama(layer=(4, 1, 4, 6)), "num_query_groups cannot shrink from 2 to 1; at least 2"),
        (llama(layer=(4, 2, 2, 6)), "kv_channels cannot shrink from 4 to 2; at least 4"),
        (llama(layer=(4, 2, 8, 6)), "kv_channels must stay 4, not 8: the rotary"),
        (llama(layer=(4, 4, 4, 6)), "at least 8 heads"),
        (llama(layer=(5, 2, 4, 6)), "nearest: 4 heads"),
        (llama(layer=(5, 4, 4, 6)), "nearest: 8 heads"),
        (model_shape(8, LAYER, (4, 2, 4, 7)), "layers of the new model must be of one shape"),
        (model_shape(8, *[LAYER] * 4, style="gpt2"), "style must stay 'llama', not 'gpt2'"),
        (model_shape(8, *[LAYER] * 4, tied=True), "tie_embeddings must stay False, not True"),
        (model_shape(8, *[LAYER] * 4, qk_norm=True), "qk_norm must stay False, not True"),
        (replace(llama(layers=4), padded_vocab_size=16), "padded_vocab_size must stay 12, not 16"),
        (replace(llama(layers=4), seq_length=8), "seq_length must stay 6, not 8"),
        (model_shape(8), "has no layers"),
        (llama(), "nothing grows"),
    ],
)
def test_refuses_what_it_cannot_do_and_says_what_it_can(new: ModelShape, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_ligo(llama(), new)


def test_heads_may_get_longer_where_nothing_is_rotated() -> None:
    old = model_shape(8, LAYER, style="gpt2")
    check_ligo(old, model_shape(8, (4, 2, 8, 6), style="gpt2"))

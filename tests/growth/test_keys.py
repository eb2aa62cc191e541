from __future__ import annotations

from megagrow.growth.keys import source_key


def test_the_source_of_a_tensor_is_the_same_tensor_of_the_copied_layer() -> None:
    key = "decoder.layers.{}.self_attention.linear_qkv.weight"
    assert source_key(key.format(11), [7] * 11 + [3]) == key.format(3)
    assert source_key("layers.0.norm.bias", [5]) == "layers.5.norm.bias"
    assert source_key("embedding.word_embeddings.weight", [0]) == "embedding.word_embeddings.weight"

"""The recipes of examples/lws are the published models."""

from __future__ import annotations

from pathlib import Path

import pytest

from megagrow.config import load
from megagrow.model.flops import parameters
from megagrow.model.shape import model_shape

FOLDER = Path(__file__).parents[2] / "examples" / "lws"

PUBLISHED = {
    "baseline_12l": 181.1, "vanilla_12l": 178.8, "baseline_18l": 183.5, "vanilla_18l": 179.7,
    "framed_18l": 179.4, "reverse_18l": 179.4, "crown_18l": 181.9,
}  # fmt: skip
"""Millions of parameters in table 2 of arXiv 2509.06518."""

OPENELM = {
    "openelm_270m": 271_527_168, "openelm_450m": 457_179_136, "openelm_1_1b": 1_079_891_456,
    "openelm_3b": 3_036_647_424,
}  # fmt: skip
"""What the shapes in apple/corenet come to, with the 32000 rows of the published weights."""


def test_all_are_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*PUBLISHED, *OPENELM}


@pytest.mark.parametrize("name", PUBLISHED)
def test_layer_wise_scaling_variants(name: str) -> None:
    config = load(FOLDER / f"{name}.yaml")
    (stage,) = config.stages
    shape = model_shape(stage.model, stage.layers)
    assert f"{shape.num_layers}l" == name.rpartition("_")[2]
    # OLMo 2's norms of queries and keys run over the whole projection, ours over one head.
    wider_norms = sum(
        (layer.num_attention_heads + layer.num_query_groups - 2) * 64 for layer in shape.layers
    )
    assert round((parameters(shape).total + wider_norms) / 1e6, 1) == PUBLISHED[name]
    assert all(layer.num_attention_heads == 3 * layer.num_query_groups for layer in shape.layers)
    step = stage.batch.global_size * stage.model.seq_length
    assert stage.tokens == 13_000 * step
    assert stage.learning_rate.decay == "constant"


@pytest.mark.parametrize("name", OPENELM)
def test_openelm(name: str) -> None:
    (stage,) = load(FOLDER / f"{name}.yaml").stages
    assert parameters(model_shape(stage.model, stage.layers)).total == OPENELM[name]
    step = stage.batch.global_size * stage.model.seq_length
    assert stage.tokens == 350_000 * step
    assert stage.learning_rate.warmup == 5_000 * step

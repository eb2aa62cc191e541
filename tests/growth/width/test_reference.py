from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megagrow.model.tensors import Role, TensorName
from tests.growth.width.reference import Model, logits, model_shape, random_model, tokens
from tests.model.reference import GPT, Sizes


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_reference_is_the_gpt_that_the_model_is_tested_against(style: str, tied: bool) -> None:
    shape = model_shape(6, (4, 2, 4, 5), (4, 2, 4, 5), style=style, tied=tied)
    model = random_model(shape, 0)
    sizes = Sizes(
        style=style, layers=2, hidden=6, heads=4, groups=2, channels=4, ffn=5, vocab=12, length=6,
        tied=tied,
    )  # fmt: skip
    gpt = GPT(sizes)
    gpt.load_state_dict(_state(model, style, tied))
    with torch.no_grad():
        expected = gpt.logits(tokens(shape))
    torch.testing.assert_close(logits(model, shape), expected, rtol=1e-5, atol=1e-5)


def _state(model: Model, style: str, tied: bool) -> dict[str, Tensor]:
    def get(role: Role, layer: int | None = None, bias: bool = False) -> Tensor:
        return model[TensorName(role=role, layer=layer, bias=bias)]

    state = {"embedding.weight": get(Role.TOKEN_EMBEDDING)}
    if style == "gpt2":
        state["positions.weight"] = get(Role.POSITION_EMBEDDING)
    if not tied:
        state["head.weight"] = get(Role.OUTPUT)
    for bias in (False, True) if style == "gpt2" else (False,):
        kind = "bias" if bias else "weight"
        state[f"norm.{kind}"] = get(Role.FINAL_NORM, bias=bias)
        for layer in range(2):
            parts = [get(role, layer, bias) for role in (Role.QUERY, Role.KEY, Role.VALUE)]
            grouped = [part.view(2, -1, *part.shape[1:]) for part in parts]
            fused = torch.cat(grouped, dim=1).flatten(0, 1)
            up = [get(Role.GATE, layer)] if style == "llama" else []
            before = f"layers.{layer}"
            state |= {
                f"{before}.norm1.{kind}": get(Role.ATTENTION_NORM, layer, bias),
                f"{before}.norm2.{kind}": get(Role.MLP_NORM, layer, bias),
                f"{before}.qkv.{kind}": fused,
                f"{before}.proj.{kind}": get(Role.ATTENTION_OUTPUT, layer, bias),
                f"{before}.up.{kind}": torch.cat([*up, get(Role.UP, layer, bias)]),
                f"{before}.down.{kind}": get(Role.DOWN, layer, bias),
            }
    return state

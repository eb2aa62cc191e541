from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from megagrow.config.schema import ModelConfig
from megagrow.conversion.families import layout_of
from megagrow.conversion.layout import Layout
from megagrow.growth.plan import GrowthPlan
from megagrow.growth.verbatim import copied_tensors
from megagrow.model.shape import model_shape
from tests.conversion.models import write_folder
from tests.growth.test_depth import plan


def layout(layers: int, family: str = "llama", ffn: int = 48) -> Layout:
    model = ModelConfig(
        style="gpt2" if family == "gpt2" else "llama", hidden_size=32, num_attention_heads=4,
        ffn_hidden_size=ffn, vocab_size=50, seq_length=24,
    )  # fmt: skip
    return layout_of(family, replace(model_shape(model, layers), padded_vocab_size=50))


def copies(growth: GrowthPlan, family: str = "llama", ffn: int = 48) -> dict[str, str]:
    old = layout(growth.old_layers, family)
    return copied_tensors(growth, old, layout(growth.new_layers, family, ffn))


@pytest.mark.parametrize(("family", "layers"), [("llama", "layers"), ("gpt2", "h")])
def test_a_stack_copies_every_tensor_from_its_layer(family: str, layers: str) -> None:
    growth = plan(old=2, new=4, operator="stack")
    found = copies(growth, family)
    assert set(found) == set(layout(4, family).by_key)
    for new, old in found.items():
        before, mark, after = new.partition(f"{layers}.")
        number, _, name = after.partition(".")
        assert old == (f"{before}{mark}{int(number) % 2}.{name}" if mark else new)


def test_what_is_not_a_copy_is_left_out() -> None:
    assert not copies(plan(old=2, new=4, operator="stack", noise=0.1))
    zeroed = plan(old=2, new=4, operator="stack", new_output="zero")
    left = set(layout(4).by_key) - set(copies(zeroed))
    assert left == {
        f"model.layers.{layer}.{name}.weight"
        for layer in (2, 3)
        for name in ("self_attn.o_proj", "mlp.down_proj")
    }
    drawn = plan(old=2, new=3, operator="random", insert="top")
    left = set(layout(3).by_key) - set(copies(drawn))
    assert left == {key for key in layout(3).by_key if "layers.2." in key}
    wider = copies(plan(old=2, new=4, operator="stack"), ffn=64)
    assert not any(".mlp." in key for key in wider)
    assert "model.layers.3.self_attn.q_proj.weight" in wider


@pytest.mark.parametrize("norms_of", [None, 0])
def test_predicted_layers_are_made_and_their_norms_copied_from_where_they_come(
    norms_of: int | None,
) -> None:
    growth = plan(old=2, new=4, operator="stack")
    found = copies(replace(growth, predicted=frozenset({2}), norms_of=norms_of))
    of_layer = {key for key in found if "layers.2." in key}
    names = ("input_layernorm", "post_attention_layernorm") if norms_of is None else ()
    assert of_layer == {f"model.layers.2.{name}.weight" for name in names}


def test_stacking_a_folder_imports_no_torch(tmp_path: Path) -> None:
    write_folder(tmp_path / "old", "llama")
    text = (
        "import sys; from tools.grow_checkpoint import main\n"
        f"status = main([{str(tmp_path / 'old')!r}, '--layers', '4', '--output', "
        f"{str(tmp_path / 'new')!r}, '--quiet'])\n"
        "print(status, *sorted({'torch', 'megatron', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"

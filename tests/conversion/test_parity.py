"""Our models and those of transformers compute the same, whichever way they were converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megagrow.config.schema import ParallelConfig
from megagrow.conversion.exporting import to_hugging_face
from megagrow.conversion.importing import from_hugging_face
from megagrow.runtime import groups
from tests.conversion.models import MODELS, load, logits, loss, make, tokens
from tests.distributed import World

pytest.importorskip("transformers", reason="the classifier extra is not installed")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder of safetensors."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def reload(folder: Path) -> Any:
    """What transformers makes of a folder; every tensor must have its place."""
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers_both_ways(name: str, tmp_path: Path, alone: None) -> None:
    theirs = make(name)
    theirs.save_pretrained(tmp_path / "in")
    imported = from_hugging_face(tmp_path / "in", tmp_path / "ours")
    assert imported.padding == 128 - 50
    assert imported.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    with torch.no_grad():
        expected = theirs(tokens()).logits
    ours, _ = load(tmp_path / "ours")
    found = logits(ours, tokens())
    torch.testing.assert_close(
        found[..., :50], expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
    )
    assert not found[..., 50:].any()  # the padding's rows are zeros

    exported = to_hugging_face(tmp_path / "ours", tmp_path / "out")
    assert exported.family == ("llama" if name.startswith("mistral") else theirs.config.model_type)
    before, after = tensors(tmp_path / "in"), tensors(tmp_path / "out")
    before.pop("lm_head.weight", None) if theirs.config.tie_word_embeddings else None
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    again = reload(tmp_path / "out")
    assert again.config.vocab_size == 50
    with torch.no_grad():
        assert torch.equal(again(tokens()).logits, expected)


def test_a_base_model_without_its_prefix_is_read(tmp_path: Path, alone: None) -> None:
    """As OpenAI's own GPT-2 files are, with the causal masks that they hold."""
    from safetensors.torch import save_file

    theirs = make("gpt2")
    theirs.save_pretrained(tmp_path / "in")
    stored = {
        key.removeprefix("transformer."): tensor
        for key, tensor in tensors(tmp_path / "in").items()
        if key != "lm_head.weight"
    }
    stored["h.0.attn.bias"] = torch.ones(1, 1, 24, 24).tril()
    save_file(stored, tmp_path / "in" / "model.safetensors", metadata={"format": "pt"})
    from_hugging_face(tmp_path / "in", tmp_path / "ours")
    with torch.no_grad():
        expected = theirs(tokens()).logits
    found = logits(load(tmp_path / "ours")[0], tokens())[..., :50]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_shorter_sequence_keeps_the_first_positions(
    name: str, tmp_path: Path, alone: None
) -> None:
    theirs = make(name)
    theirs.save_pretrained(tmp_path / "in")
    imported = from_hugging_face(tmp_path / "in", tmp_path / "ours", seq_length=16)
    assert imported.model.seq_length == 16
    with torch.no_grad():
        expected = theirs(tokens(16)).logits
    found = logits(load(tmp_path / "ours")[0], tokens(16))[..., :50]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen3", "qwen2", "gpt2"])
def test_two_tensor_parallel_ranks_have_the_same_loss(
    name: str, tmp_path: Path, alone: None, world2: World
) -> None:
    make(name).save_pretrained(tmp_path / "in")
    from_hugging_face(tmp_path / "in", tmp_path / "ours", vocab_padding=16)
    whole, _ = loss(tmp_path / "ours", ParallelConfig())
    for parallel in (
        ParallelConfig(tensor=2),
        ParallelConfig(tensor=2, sequence_parallel=True, distributed_optimizer=False),
    ):
        for found, size in world2.run(loss, tmp_path / "ours", parallel):
            assert size == 2
            assert found == pytest.approx(whole, rel=1e-6)


def test_bf16_keeps_its_bits_and_has_fp32_master_weights(tmp_path: Path, alone: None) -> None:
    theirs = make("qwen3").to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "in")
    from_hugging_face(tmp_path / "in", tmp_path / "ours")
    model, trained = load(tmp_path / "ours", precision="bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    masters = [
        tensor
        for part in trained.optimizer.chained_optimizers
        for group in part.shard_fp32_from_float16_groups
        for tensor in group
    ]
    assert sum(tensor.numel() for tensor in masters) == sum(p.numel() for p in model.parameters())
    total = sum(float(tensor.double().sum()) for tensor in masters)
    assert total == pytest.approx(sum(float(p.detach().double().sum()) for p in model.parameters()))
    groups.tear_down()
    to_hugging_face(tmp_path / "ours", tmp_path / "out")
    before, after = tensors(tmp_path / "in"), tensors(tmp_path / "out")
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert reload(tmp_path / "out").dtype == torch.bfloat16

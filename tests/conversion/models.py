"""Tiny models of transformers with random weights, and ours loaded from a checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state

from megagrow.checkpoint import sharded
from megagrow.checkpoint.sharded import TrainedModel
from megagrow.checkpoint.store import read_state
from megagrow.config.schema import ModelConfig, OptimizerConfig, ParallelConfig
from megagrow.conversion.exporting import stored_model
from megagrow.conversion.families import layout_of, write_config
from megagrow.conversion.safetensors_folder import SafetensorsWriter
from megagrow.model.build import build_model, build_optimizer, wrap_ddp
from megagrow.model.shape import model_shape
from megagrow.runtime import groups, seeds

LLAMA31 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 24,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama_tied_no_groups": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama31": (
        "Llama", {"head_dim": 16, "rope_parameters": {"rope_theta": 500000.0, **LLAMA31}},
    ),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 12, "num_key_value_heads": 1}),
    "mistral_wide_window": ("Mistral", {"sliding_window": 24}),
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}),
    "qwen2_tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3_tied": ("Qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "gpt2": ("GPT2", {}),
    "gpt2_untied": ("GPT2", {"tie_word_embeddings": False, "n_inner": 40}),
}  # fmt: skip


def make(name: str, **keys: Any) -> Any:
    """A model of transformers whose every tensor is random, norms and biases too."""
    import transformers

    kind, own = MODELS[name]
    sizes = dict(SIZES)
    if kind == "GPT2":
        sizes = {
            "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 24,
            "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**(sizes | own | keys))
    config._attn_implementation = "eager"
    suffix = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    torch.manual_seed(3)
    model = getattr(transformers, f"{kind}{suffix}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    return model


def write_folder(path: Path, family: str, dtype: torch.dtype = torch.float32, **keys: Any) -> None:
    """A folder of a family without the help of transformers; `keys` are put into config.json."""
    model = ModelConfig(
        style="gpt2" if family == "gpt2" else "llama", hidden_size=32, num_attention_heads=4,
        num_query_groups=4 if family == "gpt2" else 2, ffn_hidden_size=48, vocab_size=50,
        seq_length=24, qkv_bias=family == "qwen2", qk_norm=family == "qwen3",
    )  # fmt: skip
    shape = replace(model_shape(model, 2), padded_vocab_size=50)
    layout = layout_of(family, shape)
    generator = torch.Generator().manual_seed(1)
    with SafetensorsWriter(path) as writer:
        for key in layout.by_key:
            tensor = torch.randn(layout.stored_shape(key), generator=generator)
            writer.add(key, tensor.to(dtype))
        document = write_config(family, model, shape) | keys
        (writer.folder / "config.json").write_text(json.dumps(document))


def tokens(count: int = 24) -> torch.Tensor:
    """Two sequences `[2, count]`."""
    return torch.randint(50, (2, count), generator=torch.Generator().manual_seed(5))


def load(
    checkpoint: Path, parallel: ParallelConfig | None = None, precision: str = "fp32"
) -> tuple[Any, TrainedModel]:
    """Our model with the weights of a checkpoint, in evaluation mode, and what was loaded."""
    parallel = parallel or ParallelConfig()
    model, layers = stored_model(read_state(checkpoint), checkpoint)
    groups.set_up(tensor=parallel.tensor)
    seeds.seed_step(1, 0)
    built = build_model(model_shape(model, layers), model, parallel, precision)  # type: ignore[arg-type]
    chunks = wrap_ddp(built, parallel)
    optimizer = build_optimizer(chunks, OptimizerConfig(), parallel, precision)  # type: ignore[arg-type]
    sharded.prepare(optimizer)
    trained = TrainedModel(
        chunks=[chunk.module for chunk in chunks], optimizer=optimizer, updates=0
    )
    sharded.load(trained, checkpoint, moments=lambda key: None)
    return built[0].eval(), trained


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Our logits `[b, s, padded vocabulary]`, this rank's part."""
    positions = torch.arange(ids.size(1)).expand_as(ids).contiguous()
    found: torch.Tensor = model(ids, positions, None)
    return found


def loss(checkpoint: Path, parallel: ParallelConfig) -> tuple[float, int]:
    """Mean loss of a checkpoint's model on some tokens, and the tensor-parallel size."""
    model, _ = load(checkpoint, parallel)
    ids = tokens()
    positions = torch.arange(ids.size(1)).expand_as(ids).contiguous()
    with torch.no_grad():
        found = model(ids, positions, None, labels=ids.roll(-1, 1))
    return float(found.mean()), parallel_state.get_tensor_model_parallel_world_size()

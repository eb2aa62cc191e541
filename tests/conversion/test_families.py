from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megagrow.config import ModelConfig
from megagrow.conversion.families import family_of, read_config, write_config
from megagrow.errors import CheckpointError
from megagrow.model.flops import parameters
from megagrow.model.shape import model_shape

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 50, "max_position_embeddings": 4096,
}  # fmt: skip
MISTRAL = LLAMA | {"model_type": "mistral"}
QWEN2, QWEN3 = LLAMA | {"model_type": "qwen2"}, LLAMA | {"model_type": "qwen3"}
GPT2 = {"model_type": "gpt2", "vocab_size": 50257}
SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
FILE = Path("here/config.json")

# As published, without what has no part in the model.
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "Llama-3.1-8B": (
        {
            "architectures": ["LlamaForCausalLM"], "attention_bias": False,
            "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
            "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
            "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False,
            "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
            "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
            "rope_scaling": SCALING, "rope_theta": 500000.0, "tie_word_embeddings": False,
            "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": True,
            "vocab_size": 128256,
        },
        8_030_261_248,
    ),
    "Mistral-7B-v0.3": (
        {
            "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
            "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096,
            "initializer_range": 0.02, "intermediate_size": 14336,
            "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
            "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
            "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False,
            "vocab_size": 32768,
        },
        7_248_023_552,
    ),
    "Qwen2.5-0.5B": (
        {
            "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu",
            "bos_token_id": 151643, "eos_token_id": 151643, "hidden_size": 896,
            "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24,
            "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
            "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
            "sliding_window": 32768, "tie_word_embeddings": True, "use_mrope": False,
            "use_sliding_window": False, "vocab_size": 151936,
        },
        494_032_768,
    ),
    "Qwen3-0.6B": (
        {
            "architectures": ["Qwen3ForCausalLM"], "attention_bias": False,
            "attention_dropout": 0.0, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
            "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
            "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
            "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None,
            "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
            "use_sliding_window": False, "vocab_size": 151936,
        },
        596_049_920,
    ),
    "gpt2": (
        {
            "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
            "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
            "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
            "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
            "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
            "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
            "vocab_size": 50257,
        },
        124_439_808,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_size(name: str) -> None:
    data, count = PUBLISHED[name]
    found = read_config(data, FILE, vocab_padding=1)
    shape = model_shape(found.model, found.layers)
    assert parameters(shape).total == count
    assert found.token_ids["eos_token_id"] == data.get("eos_token_id")
    again = read_config(write_config(found.family, found.model, shape), FILE, vocab_padding=1)
    assert (again.model, again.layers) == (found.model, found.layers)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (LLAMA, {"num_query_groups": 4, "kv_channels": 8, "tie_embeddings": False}),
        (LLAMA | {"rope_theta": 5e5}, {"rotary_base": 500_000, "rotary_scaling": None}),
        (LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
         {"rotary_base": 7}),
        (LLAMA | {"rope_scaling": SCALING}, {"rotary_base": 10_000, "rotary_scaling": 8.0}),
        (LLAMA | {"rope_parameters": SCALING | {"rope_theta": 5e5}},
         {"rotary_base": 500_000, "rotary_scaling": 8.0}),
        (MISTRAL | {"num_attention_heads": 8},
         {"num_query_groups": 8, "kv_channels": 4, "seq_length": 4096}),
        (QWEN3, {"kv_channels": 128, "qk_norm": True}),
        (GPT2, {"dropout": 0.1, "tie_embeddings": True, "seq_length": 1024, "hidden_size": 768}),
    ],
)  # fmt: skip
def test_missing_keys_are_transformers_defaults(
    data: dict[str, Any], expected: dict[str, Any]
) -> None:
    model = read_config(data, FILE).model
    assert {key: getattr(model, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'; these can be converted: gpt2, llama"),
        ({}, "model_type is None"),
        ({"model_type": "llama"}, "hidden_size is missing"),
        (LLAMA | {"hidden_size": "many"}, "hidden_size is 'many'"),
        (LLAMA | {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        (LLAMA | {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (LLAMA | {"attention_bias": True}, "attention_bias is True"),
        (LLAMA | {"mlp_bias": True}, "mlp_bias is True"),
        (LLAMA | {"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        (LLAMA | {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAMA | {"auto_map": {"AutoModel": "code.py"}}, "auto_map"),
        (LLAMA | {"embedding_multiplier": 12.0}, "embedding_multiplier is 12.0, and what it does"),
        (LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        (LLAMA | {"rope_scaling": SCALING | {"low_freq_factor": 2}}, "low_freq_factor is 2"),
        (LLAMA | {"rope_scaling": SCALING | {"factor": None}}, "factor must be a number"),
        (LLAMA | {"rope_scaling": "llama3"}, "rope_scaling must be a mapping"),
        (LLAMA | {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is"),
        (LLAMA | {"rope_parameters": {"mscale": 2}}, "rope_parameters.mscale is 2"),
        (LLAMA | {"rope_theta": 10000.5}, "rope_theta is 10000.5"),
        (LLAMA | {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        (MISTRAL | {"max_position_embeddings": 8192},
         "sliding_window is 4096, less than the sequence length 8192.*--seq-length 4096"),
        (QWEN2 | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
         "sliding_window is 9"),
        (QWEN3 | {"use_sliding_window": True, "sliding_window": 9,
                  "layer_types": ["full_attention", "sliding_attention"]}, "sliding_window is 9"),
        (QWEN3 | {"attention_bias": True}, "attention_bias is True"),
        (GPT2 | {"activation_function": "gelu"}, "activation_function is 'gelu'"),
        (GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        (GPT2 | {"add_cross_attention": True}, "add_cross_attention"),
        (GPT2 | {"attn_pdrop": 0.0}, "resid_pdrop and its kin differ"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"here/config\.json: .*{message}"):
        read_config(data, FILE)


@pytest.mark.parametrize(
    "data",
    [
        MISTRAL | {"max_position_embeddings": 8192},
        QWEN2 | {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1},
    ],
)
def test_a_window_as_long_as_the_sequence_changes_nothing(data: dict[str, Any]) -> None:
    assert read_config(data, FILE, seq_length=4096).model.seq_length == 4096


@pytest.mark.parametrize("data", [LLAMA, GPT2])
def test_a_sequence_longer_than_the_positions_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="less than 5000 tokens"):
        read_config(data, FILE, seq_length=5000)


@pytest.mark.parametrize(
    ("keys", "family", "message"),
    [
        ({"qkv_bias": True, "qk_norm": True}, "qwen3", "megagrow alone has both"),
        ({"qkv_bias": True}, "llama", "choose another one"),
        ({}, "gpt2", "is no gpt2"),
        ({"style": "gpt2"}, "llama", "is no llama"),
        ({"style": "gpt2", "qk_norm": True}, None, r"model\.qk_norm"),
        ({"style": "gpt2", "num_query_groups": 2}, None, r"model\.num_query_groups"),
        ({"style": "gpt2", "kv_channels": 4}, None, r"model\.kv_channels"),
        ({"hidden_size": 30, "kv_channels": 8}, None, "--family mistral"),
    ],
)
def test_what_a_family_has_not_is_refused(
    keys: dict[str, Any], family: str | None, message: str
) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 50, "seq_length": 8
    }  # fmt: skip
    model = ModelConfig(**(sizes | keys))
    shape = model_shape(model, 2)
    with pytest.raises(CheckpointError, match=message):
        write_config(family or family_of(model, shape), model, shape)

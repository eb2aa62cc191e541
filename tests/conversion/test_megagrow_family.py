"""Models that only our own family holds: layers of different sizes, biases and norms together."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from megagrow.config.build import build
from megagrow.config.schema import LayerScalingConfig, LayerTable, ModelConfig
from megagrow.config.source import Source
from megagrow.conversion.distributed import CheckpointReader
from megagrow.conversion.exporting import to_hugging_face
from megagrow.conversion.families import read_config, write_config
from megagrow.conversion.importing import from_hugging_face, publish_weights
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.errors import CheckpointError
from megagrow.model.shape import ModelShape, model_shape
from tests.conversion.models import load, logits, tokens
from tests.distributed import World
from tests.train import layouts
from tools.convert_checkpoint import main

TABLE = LayerScalingConfig(
    variant="table",
    table=LayerTable(
        num_attention_heads=(6, 2, 4), num_query_groups=(3, 2, 1), ffn_hidden_size=(80, 16, 48)
    ),
)
CROWN = LayerScalingConfig(
    variant="crown",
    ffn_multipliers=(0.5, 3.0, 0.5),
    qkv_multipliers=(0.5, 1.5, 0.5),
    ffn_multiple=8,
    queries_per_group=2,
    framed=False,
)
MODELS: dict[str, dict[str, Any]] = {
    "table": {"layer_scaling": TABLE},
    "crown_tied_llama31": {
        "layer_scaling": CROWN, "tie_embeddings": True, "rotary_base": 500_000,
        "rotary_scaling": 8.0,
    },
    "biases": {"layer_scaling": TABLE, "qkv_bias": True},
    "norms_tied": {"layer_scaling": TABLE, "qk_norm": True, "tie_embeddings": True},
    "biases_and_norms": {"layer_scaling": CROWN, "qkv_bias": True, "qk_norm": True},
    "equal_layers": {"qkv_bias": True, "qk_norm": True, "num_query_groups": 2},
}  # fmt: skip
LAYERS = 3
FILE = Path("here/config.json")


def config(**keys: Any) -> ModelConfig:
    sizes: dict[str, Any] = {
        "hidden_size": 32, "num_attention_heads": 4, "kv_channels": 8, "vocab_size": 50,
        "seq_length": 24, "norm_epsilon": 1e-5,
    }  # fmt: skip
    return ModelConfig(**(sizes | keys))


class Drawn:
    """Random weights under megatron-core's keys; those of norms near 1."""

    def __init__(self, shape: ModelShape) -> None:
        generator = torch.Generator().manual_seed(7)
        self.tensors: dict[str, Tensor] = {}
        layout = megatron_layout(shape)
        for key in layout.by_key:
            tensor = 0.2 * torch.randn(layout.stored_shape(key), generator=generator)
            self.tensors[key] = tensor + 1 if "norm" in key else tensor

    def keys(self) -> Iterable[str]:
        return self.tensors.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.tensors[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self.tensors[key].dtype

    def tensor(self, key: str) -> Tensor:
        return self.tensors[key]


def checkpoint(folder: Path, model: ModelConfig) -> Path:
    publish_weights(Drawn(model_shape(model, LAYERS)), folder, model, LAYERS, "", {})
    return folder


@pytest.fixture(scope="module", autouse=True)
def code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where transformers copies the code of a folder to before it runs it."""
    pytest.importorskip("transformers", reason="the classifier extra is not installed")
    from transformers import dynamic_module_utils

    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", folder)
        patch.syspath_prepend(folder)
        yield


def reload(folder: Path, **options: Any) -> Any:
    """What transformers makes of a folder and its code; every tensor must have its place."""
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, **options
    )
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_ours_and_weights_come_back(name: str, tmp_path: Path, alone: None) -> None:
    model = config(**MODELS[name])
    done = to_hugging_face(checkpoint(tmp_path / "ours", model), tmp_path / "out")
    assert done.family == "megagrow"
    ours, _ = load(tmp_path / "ours")
    expected = logits(ours, tokens())[..., :50]
    theirs = reload(tmp_path / "out")
    assert sum(parameter.numel() for parameter in theirs.parameters()) == done.parameters
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(tokens()).logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
        )

    imported = from_hugging_face(tmp_path / "out", tmp_path / "again")
    assert model_shape(imported.model, LAYERS) == model_shape(model, LAYERS)
    assert (imported.layers, imported.parameters) == (LAYERS, done.parameters)
    section = yaml.safe_load(imported.text)["model"]
    assert build(ModelConfig, section, Source(file="", data={}, lines={})) == imported.model
    before, after = (CheckpointReader(tmp_path / each) for each in ("ours", "again"))
    assert sorted(before.keys()) == sorted(after.keys())
    for key in before.keys():  # noqa: SIM118 - no mapping
        rows = 50 if "embedding" in key or "output_layer" in key else None
        assert torch.equal(before.tensor(key)[:rows], after.tensor(key)[:rows]), key


def test_a_profile_becomes_lists_and_a_table_of_what_varies(tmp_path: Path) -> None:
    crown = replace(CROWN, qkv_multipliers=None)
    to_hugging_face(checkpoint(tmp_path / "ours", config(layer_scaling=crown)), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found["num_attention_heads_per_layer"] == [4, 4, 4]
    assert found["num_key_value_heads_per_layer"] == [2, 2, 2]
    assert found["intermediate_size_per_layer"] == [16, 96, 16]
    assert found["intermediate_size"] == 96
    imported = from_hugging_face(tmp_path / "out", tmp_path / "again")
    assert imported.model.layer_scaling == LayerScalingConfig(
        variant="table", table=LayerTable(ffn_hidden_size=(16, 96, 16))
    )
    assert "      ffn_hidden_size: [16, 96, 16]\n" in imported.text


def test_a_run_goes_on_from_what_came_back(world1: World, tmp_path: Path) -> None:
    """With the model.yaml of the import, it trains as from the checkpoint itself."""
    (tmp_path / "buckets").mkdir()
    buckets = layouts.write_buckets(tmp_path / "buckets")
    profile = {
        "layer_scaling": {
            "variant": "vanilla", "ffn_multipliers": [1.0, 3.0], "qkv_multipliers": [0.5, 1.0],
            "ffn_multiple": 8, "queries_per_group": 2,
        },
        "num_query_groups": None, "ffn_hidden_size": None,
    }  # fmt: skip
    row = layouts.stage(LAYERS, 2)
    base = layouts.train(
        world1, layouts.config_of(buckets, tmp_path / "base", row, model=profile)
    ).checkpoint(2)
    to_hugging_face(base, tmp_path / "out")
    imported = from_hugging_face(tmp_path / "out", tmp_path / "again", vocab_padding=16)
    assert [layer.num_attention_heads for layer in model_shape(imported.model, LAYERS).layers] == [
        2, 4, 4,
    ]  # fmt: skip
    section = yaml.safe_load(imported.text)["model"]
    again, direct = (
        layouts.train(
            world1,
            layouts.config_of(
                buckets, tmp_path / name, row, model=model, initialise_from=str(source)
            ),
        )
        for name, model, source in (
            ("run", section, tmp_path / "again"), ("direct", profile, base),
        )
    )  # fmt: skip
    assert again.losses == direct.losses


def test_generation_with_a_cache_is_generation_without(tmp_path: Path) -> None:
    to_hugging_face(
        checkpoint(tmp_path / "ours", config(layer_scaling=TABLE, qk_norm=True)),
        tmp_path / "out", token_ids={"pad_token_id": 0},
    )  # fmt: skip
    model = reload(tmp_path / "out")
    prompt = tokens(6)
    written = [
        model.generate(prompt, max_new_tokens=12, do_sample=False, **options)
        for options in ({}, {"use_cache": False}, {"cache_implementation": "static"})
    ]
    assert written[0].shape == (2, 18)
    for each in written[1:]:
        assert torch.equal(each, written[0])


def test_every_implementation_of_attention_is_causal(tmp_path: Path) -> None:
    to_hugging_face(checkpoint(tmp_path / "ours", config(layer_scaling=TABLE)), tmp_path / "out")
    model = reload(tmp_path / "out", attn_implementation="eager")
    with torch.no_grad():
        expected = model(tokens()).logits
        model.set_attn_implementation("sdpa")
        torch.testing.assert_close(model(tokens()).logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            model(tokens()[:, :9]).logits, expected[:, :9], rtol=1e-4, atol=1e-4
        )


def test_what_transformers_saves_again_is_read(tmp_path: Path) -> None:
    model = config(**MODELS["biases_and_norms"])
    to_hugging_face(checkpoint(tmp_path / "ours", model), tmp_path / "out")
    reload(tmp_path / "out").save_pretrained(tmp_path / "saved")
    first, second = (
        from_hugging_face(tmp_path / each, tmp_path / f"{each}_ours") for each in ("out", "saved")
    )
    assert first.model == second.model
    assert reload(tmp_path / "saved").config.intermediate_size_per_layer == [16, 96, 16]


def test_the_code_beside_it_is_not_run_here_and_needs_only_torch_and_transformers(
    tmp_path: Path,
) -> None:
    to_hugging_face(checkpoint(tmp_path / "ours", config(layer_scaling=TABLE)), tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.py"))
    assert [path.name for path in files] == ["configuration_megagrow.py", "modeling_megagrow.py"]
    imported = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add("." * node.level + str(node.module).partition(".")[0])
        path.write_text("raise SystemExit(1)\n")
    assert imported == {"copy", "torch", "transformers", ".configuration_megagrow"}
    from_hugging_face(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gpt2"])
def test_other_families_hold_no_layers_of_different_sizes(family: str) -> None:
    keys: dict[str, Any] = {
        "style": "gpt2" if family == "gpt2" else "llama", "layer_scaling": TABLE,
        "qkv_bias": family == "qwen2", "qk_norm": family == "qwen3",
    }  # fmt: skip
    model = config(**keys)
    with pytest.raises(CheckpointError, match=f"{family} has layers of one size"):
        write_config(family, model, model_shape(model, LAYERS))


def test_the_command_says_how_to_load_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["to-hf", str(checkpoint(tmp_path / "ours", config(layer_scaling=TABLE)))]
    arguments += ["--output", str(tmp_path / "out"), "--quiet"]
    assert main([*arguments, "--family", "qwen3"]) == 2
    assert "leave --family out" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "trust_remote_code=True" in capsys.readouterr().out


def test_layer_scaling_that_gives_equal_layers_is_a_plain_family(tmp_path: Path) -> None:
    table = LayerTable(ffn_hidden_size=(48, 48, 48))
    model = config(layer_scaling=LayerScalingConfig(variant="table", table=table))
    done = to_hugging_face(checkpoint(tmp_path / "ours", model), tmp_path / "out")
    assert done.family == "llama"
    assert not list((tmp_path / "out").glob("*.py"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_attention_heads_per_layer", [6, 2], "must be a list of 3"),
        ("num_attention_heads_per_layer", None, "is missing"),
        ("intermediate_size_per_layer", [80, 0, 48], "has 0, and must have whole numbers above 0"),
        ("num_key_value_heads_per_layer", [3, 2, 3], "has 3 for layer 2, whose 4 heads"),
        ("attention_bias", True, "only False can be converted"),
        ("per_layer_config", {"0": {"num_attention_heads": 8}}, "what it does to the model is not"),
    ],
)
def test_sizes_that_make_no_model_are_named(key: str, value: Any, message: str) -> None:
    model = config(layer_scaling=TABLE)
    data = write_config("megagrow", model, model_shape(model, LAYERS)) | {key: value}
    with pytest.raises(CheckpointError, match=rf"here/config\.json: {key}.*{message}"):
        read_config(data, FILE)


def test_a_folder_grows_into_one_that_computes_the_same(tmp_path: Path, alone: None) -> None:
    from tools.grow_checkpoint import main as grow

    to_hugging_face(checkpoint(tmp_path / "ours", config(layer_scaling=TABLE)), tmp_path / "small")
    arguments = ["--layers", "6", "--zero", "--output", str(tmp_path / "large"), "--quiet"]
    assert grow([str(tmp_path / "small"), *arguments]) == 0
    small, large = reload(tmp_path / "small"), reload(tmp_path / "large")
    assert len(large.model.layers) == 6
    assert large.config.num_attention_heads_per_layer == [6, 2, 4] * 2
    with torch.no_grad():
        assert torch.equal(small(tokens()).logits, large(tokens()).logits)

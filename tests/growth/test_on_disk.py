"""Models on disk that grow: the same as growth in flight, and what transformers makes of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megagrow.checkpoint import sharded
from megagrow.config import RunConfig
from megagrow.conversion.exporting import find_checkpoint
from megagrow.growth.on_disk import grow_model, open_model
from tests.distributed import World
from tests.growth.test_depth import plan
from tests.train import layouts
from tests.train.layouts import config_of, stage
from tools.grow_checkpoint import main

TRANSITION = {"operator": "pattern", "pattern": "1-2x3", "noise": 0.2}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "transition",
    [TRANSITION, {"operator": "random", "insert": "middle", "new_output": "zero"}],
    ids=["noise", "random-zero"],
)
def test_it_is_growth_in_flight(
    world1: World, buckets: Path, tmp_path: Path, transition: dict[str, Any], precision: str
) -> None:
    keys = {"precision": precision}
    base = layouts.train(world1, config_of(buckets, tmp_path / "base", stage(2, 1), **keys))
    config = config_of(
        buckets, tmp_path / "run", stage(2, 1), stage(4, 1, transition=transition), **keys
    )
    flight, disk = tmp_path / "flight", tmp_path / "disk"
    flight.mkdir()
    world1.run(_grow_in_flight, config, base.checkpoint(1), flight)
    old = open_model(base.folder)
    grow_model(old, disk, plan(old=2, new=4, **transition), old.model, seed=config.seed)
    one, other = layouts.tensors(world1, flight, find_checkpoint(disk))
    weights = [key for key in one if not key.startswith("optimizer.")]
    assert {key for key in other if not key.startswith("optimizer.")} == set(weights)
    assert [key for key in weights if not torch.equal(one[key], other[key])] == []
    if precision == "bf16":  # and so are the master weights
        assert torch.equal(
            one["optimizer.state.param.output_layer.weight"],
            other["optimizer.state.param.output_layer.weight"],
        )


def _grow_in_flight(config: RunConfig, checkpoint: Path, folder: Path) -> None:
    from megagrow.train.transition import enter_stage
    from tests.train import parts

    run = parts.open_run(config)
    engine, state = parts.restored(run, checkpoint)
    engine, _ = enter_stage(run, engine, state)
    sharded.save(engine.trained(0), folder)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("transformers", reason="the classifier extra is not installed")
    from tests.conversion.models import make

    found = {}
    for name in ("gpt2", "llama", "qwen3"):
        found[name] = tmp_path_factory.mktemp(name)
        make(name).save_pretrained(found[name])
    return found


def _logits(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    from tests.conversion.models import tokens

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(tokens()).logits
    return logits


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_a_stacked_folder_has_every_layer_twice(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    source, output = folders[name], tmp_path / "grown"
    layers = open_model(source).layers
    assert main([str(source), "--layers", str(2 * layers), "--output", str(output)]) == 0
    old, new = _tensors(source), _tensors(output)
    for key, tensor in new.items():
        match = re.search(r"(layers|h)\.(\d+)\.", key)
        origin = key
        if match is not None:
            place = f"{match[1]}.{int(match[2]) % layers}."
            origin = key.replace(match[0], place)
        assert torch.equal(tensor, old[origin]), key
    assert _logits(output).isfinite().all()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("llama", ["--operator", "stack", "--zero"]),
        ("gpt2", ["--operator", "stack", "--zero"]),
        ("qwen3", ["--operator", "expand"]),
    ],
)
def test_layers_with_zero_outputs_keep_the_logits(
    folders: dict[str, Path], tmp_path: Path, name: str, arguments: list[str]
) -> None:
    source, output = folders[name], tmp_path / "grown"
    layers = str(2 * open_model(source).layers)
    assert main([str(source), "--layers", layers, *arguments, "--output", str(output)]) == 0
    torch.testing.assert_close(_logits(output), _logits(source), rtol=1e-5, atol=1e-5)


def test_hypercloning_keeps_the_logits(folders: dict[str, Path], tmp_path: Path) -> None:
    source, output = folders["llama"], tmp_path / "wide"
    old = open_model(source)
    layer = old.shape.layers[0]
    sizes = [
        "--hidden-size", str(2 * old.model.hidden_size),
        "--heads", str(2 * layer.num_attention_heads),
        "--groups", str(2 * layer.num_query_groups),
        "--ffn-hidden-size", str(2 * layer.ffn_hidden_size),
    ]  # fmt: skip
    assert main([str(source), "--width", "hyperclone", *sizes, "--output", str(output)]) == 0
    expected = _logits(source)
    scale = float(expected.abs().max())
    torch.testing.assert_close(_logits(output), expected, rtol=1e-5, atol=1e-5 * scale)


def test_lesa_puts_predicted_layers_between_the_last_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers", reason="the classifier extra is not installed")
    from tests.conversion.models import make

    source, output = tmp_path / "four", tmp_path / "six"
    make("qwen2", num_hidden_layers=4).save_pretrained(source)
    arguments = [str(source), "--layers", "6", "--operator", "lesa", "--output", str(output)]
    assert main([*arguments, "--norms", "first"]) == 0
    assert "query: loss" in capsys.readouterr().out
    old, new = _tensors(source), _tensors(output)
    origins = {0: 0, 1: 1, 3: 2, 5: 3}  # new layers are 2, between 1 and 2, and 4
    for key, tensor in new.items():
        match = re.search(r"layers\.(\d+)\.", key)
        layer = None if match is None else int(match[1])
        if layer is None:
            assert torch.equal(tensor, old[key])
            continue
        assert match is not None
        if layer in origins:
            assert torch.equal(tensor, old[key.replace(match[0], f"layers.{origins[layer]}.")]), key
        elif key.endswith("norm.weight"):
            assert torch.equal(tensor, old[key.replace(match[0], "layers.0.")]), key
        elif key.endswith("bias"):
            left = old[key.replace(match[0], f"layers.{layer // 2}.")]
            assert torch.equal(tensor, left), key
        else:
            assert not any(torch.equal(tensor, each) for each in old.values()), key
    assert _logits(output).isfinite().all()
    assert not list(tmp_path.glob(".lesa-*"))
    assert main([*arguments[:2], "9", *arguments[3:5], "--dry-run"]) == 2
    assert "nearest: 7" in capsys.readouterr().err


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folders["llama"]
    layers = open_model(source).layers
    assert main([str(source), "--layers", str(2 * layers), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert f"from old layers: 0-{layers - 1} x2" in shown
    assert "connection rate Rc" in shown
    assert main([str(source), "--layers", str(2 * layers + 1), "--dry-run"]) == 2
    assert "no multiple" in capsys.readouterr().err
    deeper = [str(source), "--layers", str(2 * layers), "--dry-run"]
    assert main([*deeper, "--heads", "64"]) == 2
    assert "add --width" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "4", "--operator", "lesa", "--zero"], "--zero has no effect with lesa"),
        (["--layers", "4", "--pattern", "12x2"], "--pattern has no effect with stack"),
        (["--layers", "4", "--epochs", "3"], "--epochs has no effect with stack"),
        (["--heads", "64"], "say what to grow"),
    ],
)
def test_options_that_nothing_reads_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["anywhere", "--dry-run", *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "8", "--noise", "nan"], "noise: is a share from 0 to 1"),
        (["--width", "hyperclone"], "width: hyperclone makes the model wider"),
        (["--width", "split", "--hidden-size", "128", "--zero"], "zero is about new layers"),
        (["--layers", "0"], "only the operator `first` makes a model shallower"),
        (["--width", "split", "--heads", "0"], "num_attention_heads: must be at least 1"),
    ],
)
def test_what_a_run_refuses_is_refused(
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    output = tmp_path / "grown"
    assert main([str(folders["llama"]), *arguments, "--output", str(output)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_heads_of_their_own_stay_so(folders: dict[str, Path], tmp_path: Path) -> None:
    source, output = folders["gpt2"], tmp_path / "wide"
    old = open_model(source)
    sizes = ["--hidden-size", str(2 * old.model.hidden_size), "--heads"]
    sizes += [str(2 * old.model.num_attention_heads), "--ffn-hidden-size"]
    sizes += [str(2 * old.shape.layers[0].ffn_hidden_size)]
    assert main([str(source), "--width", "hyperclone", *sizes, "--output", str(output)]) == 0
    expected = _logits(source)
    scale = float(expected.abs().max())
    torch.testing.assert_close(_logits(output), expected, rtol=1e-5, atol=1e-5 * scale)

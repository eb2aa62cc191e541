from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from megagrow.checkpoint.store import CheckpointStore
from megagrow.conversion.distributed import CheckpointReader
from megagrow.conversion.exporting import find_checkpoint, to_hugging_face
from megagrow.conversion.importing import from_hugging_face
from megagrow.errors import CheckpointError
from tests.conversion.models import write_folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama in bf16."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_folder(folder / "in", "llama", torch.bfloat16)
    from_hugging_face(folder / "in", folder / "ours")
    return folder / "ours"


def with_state(checkpoint: Path, folder: Path, **keys: Any) -> Path:
    """The same checkpoint with another `state.json`."""
    store = CheckpointStore(folder=folder, keep=1)
    partial = store.begin(0)
    for path in checkpoint.iterdir():
        if path.name != "state.json":
            (partial / path.name).hardlink_to(path)
    state = json.loads((checkpoint / "state.json").read_text())
    state = {key: state[key] for key in ("config", "train")} | keys
    return store.commit(partial, 100, state)


def tokenizer(folder: Path, size: int = 50) -> Path:
    """A folder with a tokenizer that has `size` tokens."""
    folder.mkdir()
    made = Tokenizer(
        WordLevel({f"w{number}": number for number in range(size - 1)}, unk_token="w0")
    )
    made.add_special_tokens([AddedToken("<end>")])
    made.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": {"content": "<end>"}, "bos_token": "w7"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def test_a_run_means_its_newest_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    newest = with_state(checkpoint, tmp_path / "run" / "checkpoints")
    for path in (newest, tmp_path / "run", tmp_path / "run" / "checkpoints"):
        assert find_checkpoint(path) == newest
    with pytest.raises(CheckpointError, match="neither a run nor a checkpoint"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float32, torch.float16])
def test_weights_are_cast_from_the_master_weights(
    dtype: torch.dtype | None, checkpoint: Path, tmp_path: Path
) -> None:
    to_hugging_face(checkpoint, tmp_path / "out", dtype=dtype)
    wanted = dtype or torch.bfloat16
    stored = CheckpointReader(checkpoint, masters=True)
    found = load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"]
    assert found.dtype == wanted
    assert torch.equal(found, stored.tensor("decoder.final_layernorm.weight").to(wanted))
    assert config(tmp_path / "out")["torch_dtype"] == str(wanted).removeprefix("torch.")


def test_rounded_weights_have_exact_master_weights(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", "llama")
    from_hugging_face(tmp_path / "in", tmp_path / "ours", dtype=torch.bfloat16)
    key = "decoder.layers.1.mlp.linear_fc2.weight"
    reader, masters = (CheckpointReader(tmp_path / "ours", masters=each) for each in (False, True))
    exact = load_file(tmp_path / "in" / "model.safetensors")["model.layers.1.mlp.down_proj.weight"]
    assert torch.equal(masters.tensor(key), exact)
    assert reader.dtype(key) == torch.bfloat16
    assert torch.equal(reader.tensor(key), exact.bfloat16())


def test_the_tokenizer_comes_along_and_names_special_tokens(
    checkpoint: Path, tmp_path: Path
) -> None:
    done = to_hugging_face(checkpoint, tmp_path / "out", tokenizer=tokenizer(tmp_path / "tokens"))
    assert done.tokenizer_files == ("tokenizer.json", "tokenizer_config.json")
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    found = config(tmp_path / "out")
    assert (found["bos_token_id"], found["eos_token_id"], found["pad_token_id"]) == (7, 49, None)
    to_hugging_face(
        checkpoint, tmp_path / "file", tokenizer=tmp_path / "tokens" / "tokenizer.json",
        token_ids={"eos_token_id": 3},
    )  # fmt: skip
    assert config(tmp_path / "file")["eos_token_id"] == 3
    assert (tmp_path / "file" / "tokenizer_config.json").is_file()


def test_a_tokenizer_that_does_not_fit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    def fault(path: Path, **options: Any) -> str:
        with pytest.raises(CheckpointError) as caught:
            to_hugging_face(checkpoint, tmp_path / "out", tokenizer=path, **options)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert "has ids up to 50, and the model's vocabulary is 50" in fault(
        tokenizer(tmp_path / "large", 51)
    )
    assert "no such tokenizer" in fault(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "holds no tokenizer" in fault(tmp_path / "empty")
    (tmp_path / "bad.json").write_text("{}")
    assert "is no tokenizer" in fault(tmp_path / "bad.json")
    fits = tokenizer(tmp_path / "fits")
    assert "eos_token_id=50 is no id" in fault(fits, token_ids={"eos_token_id": 50})


def test_a_damaged_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in checkpoint.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    part = max(copy.glob("*.distcp"), key=lambda path: path.stat().st_size)
    whole = part.read_bytes()
    part.write_bytes(whole[:-9] + b"x" + whole[-8:])
    with pytest.raises(CheckpointError, match=f"{part.name} is damaged"):
        to_hugging_face(copy, tmp_path / "out")
    part.unlink()
    with pytest.raises(CheckpointError, match=f"{part.name} is missing"):
        to_hugging_face(copy, tmp_path / "out", verify=False)
    assert not (tmp_path / "out").exists()


def test_new_layers_behind_a_mask_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    state = json.loads((checkpoint / "state.json").read_text())
    step = 4 * 24  # tokens
    stage = {"layers": 2, "batch": {"global_size": 4}}
    transition = {"new_output": "mask", "mask_tokens": 10 * step}
    state["config"]["stages"] = [
        {**stage, "tokens": 80 * step - 1, "transition": None},
        {**stage, "tokens": 80 * step, "transition": transition},
    ]
    for number, refused in ((89, True), (90, False)):
        train = {"stage": 1, "step": number}
        changed = with_state(
            checkpoint, tmp_path / str(number), config=state["config"], train=train
        )
        if refused:
            with pytest.raises(CheckpointError, match=r"behind a mask .* \(864 of 960 tokens\)"):
                to_hugging_face(changed, tmp_path / "out")
        else:
            to_hugging_face(changed, tmp_path / "out")


def test_a_state_that_says_nothing_of_a_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    changed = with_state(checkpoint, tmp_path / "a", config={})
    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        to_hugging_face(changed, tmp_path / "out")


def test_a_config_of_another_model_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", "llama", intermediate_size=64)
    with pytest.raises(CheckpointError, match="configuration and weights are of two models"):
        from_hugging_face(tmp_path / "in", tmp_path / "ours")
    (tmp_path / "in" / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds no JSON object"):
        from_hugging_face(tmp_path / "in", tmp_path / "ours")
    (tmp_path / "in" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        from_hugging_face(tmp_path / "in", tmp_path / "ours")
    (tmp_path / "in" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        from_hugging_face(tmp_path / "in", tmp_path / "ours")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}

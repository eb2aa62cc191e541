from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from megagrow.conversion.safetensors_folder import SafetensorsReader, SafetensorsWriter
from megagrow.errors import CheckpointError


def write(folder: Path, count: int = 5, **options: int) -> dict[str, torch.Tensor]:
    tensors = {f"t{number}": torch.randn(10, number + 1) for number in range(count)}
    with SafetensorsWriter(folder, **options) as writer:
        for key, tensor in tensors.items():
            writer.add(key, tensor)
    return tensors


def check(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    reader = SafetensorsReader(folder)
    assert set(reader.keys()) == set(tensors)
    for key, tensor in tensors.items():
        assert torch.equal(reader.tensor(key), tensor)
        assert reader.shape(key) == tuple(tensor.shape)
        assert reader.dtype(key) == tensor.dtype


def test_one_file_is_read_back(tmp_path: Path) -> None:
    check(tmp_path / "out", write(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "other").touch()
    mode = (tmp_path / "out" / "model.safetensors").stat().st_mode
    assert mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("size", [1, 130, 250])
def test_shards_are_no_larger_than_asked(size: int, tmp_path: Path) -> None:
    tensors = write(tmp_path / "out", shard_bytes=size)
    check(tmp_path / "out", tensors)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    files = sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    for name in files:
        held = [tensors[key].nbytes for key, file in index["weight_map"].items() if file == name]
        assert sum(held) <= size or len(held) == 1


def test_parts_of_a_tensor_take_no_more_than_their_own_room(tmp_path: Path) -> None:
    whole = torch.randn(1000, 2)
    with SafetensorsWriter(tmp_path / "out") as writer:
        writer.add("a", whole[:1])
        writer.add("b", whole[1:3])
        writer.add("c", whole.t())
        with pytest.raises(ValueError, match="there already"):
            writer.add("a", whole)
    check(tmp_path / "out", {"a": whole[:1], "b": whole[1:3], "c": whole.t()})


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with SafetensorsWriter(tmp_path / "out", shard_bytes=1) as writer:
            for number in range(3):
                writer.add(str(number), torch.ones(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_used_and_a_full_one_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    with pytest.raises(CheckpointError, match="there already"):
        write(tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="there already"):
        write(tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "file" / "below")


def test_no_room_is_noticed_before(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="GB are needed"):
        SafetensorsWriter(tmp_path / "out", needed_bytes=10**18)
    assert not list(tmp_path.iterdir())


def fault(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        SafetensorsReader(folder)
    return str(caught.value)


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"whatever")
    assert "pytorch_model.bin is a pickle" in fault(tmp_path)
    assert "save_pretrained" in fault(tmp_path)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    assert "no such folder" in fault(tmp_path / "absent")
    assert "neither model.safetensors nor" in fault(tmp_path)
    (tmp_path / "adapter_config.json").touch()
    assert "merge_and_unload" in fault(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    tensors = write(tmp_path / "out", shard_bytes=1)
    first, last = sorted((tmp_path / "out").glob("*.safetensors"))[:: len(tensors) - 1]
    content = last.read_bytes()
    last.write_bytes(content[:-8])
    assert f"{last.name} is damaged or cut short" in fault(tmp_path / "out")
    save_file({"other": torch.ones(1)}, last)
    assert f"{last.name} has no tensor" in fault(tmp_path / "out")
    last.unlink()
    assert f"{last.name} is missing" in fault(tmp_path / "out")
    last.write_bytes(content)
    first.write_bytes(b"\xff" * 100)
    assert f"{first.name} is damaged" in fault(tmp_path / "out")
    (tmp_path / "out" / "model.safetensors.index.json").write_text("{}")
    assert "index.json is damaged" in fault(tmp_path / "out")


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "other")
    (tmp_path / "out").mkdir()
    index = {"weight_map": {"t0": "../other/model.safetensors"}}
    (tmp_path / "out" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "is not the name of a file" in fault(tmp_path / "out")

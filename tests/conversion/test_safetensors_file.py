from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from megagrow.conversion import safetensors_file
from megagrow.conversion.safetensors_file import TORCH_NAMES, stored_bytes, write_file

SIZES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
KEYS = st.text(st.characters(codec="utf-8"), max_size=6).filter(lambda key: key != "__metadata__")


@given(
    st.dictionaries(KEYS, st.tuples(st.sampled_from(sorted(TORCH_NAMES)), SIZES), max_size=6),
    st.integers(1, 100),
)
def test_files_are_the_librarys_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory,
    given: dict[str, tuple[str, tuple[int, ...]]],
    size: int,
) -> None:
    tensors = {
        key: (torch.rand(shape) * 100).to(getattr(torch, TORCH_NAMES[code]))
        for key, (code, shape) in given.items()
    }
    folder = tmp_path_factory.mktemp("files")
    save_file(tensors, folder / "theirs", metadata={"format": "pt"})
    expected = (folder / "theirs").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_file, "_BLOCK", size)
        write_file(folder / "ours", tensors)
        write_file(folder / "copied", stored_bytes(folder / "theirs"))
    assert (folder / "ours").read_bytes() == expected
    assert (folder / "copied").read_bytes() == expected


def test_a_tensor_is_written_under_several_keys_from_memory_and_from_a_file(tmp_path: Path) -> None:
    tensor = torch.randn(300, 1000)  # more than a block
    write_file(tmp_path / "one", {"a": tensor})
    stored = stored_bytes(tmp_path / "one")["a"]
    write_file(tmp_path / "two", {"b": tensor, "c": stored, "d": stored, "e": torch.ones(3)})
    found = load_file(tmp_path / "two")
    assert all(torch.equal(found[key], tensor) for key in "bcd")
    assert torch.equal(found["e"], torch.ones(3))


def test_a_file_that_shrinks_while_it_is_copied_is_noticed(tmp_path: Path) -> None:
    write_file(tmp_path / "one", {"a": torch.randn(10)})
    stored = stored_bytes(tmp_path / "one")
    content = (tmp_path / "one").read_bytes()
    (tmp_path / "one").write_bytes(content[:-1])
    with pytest.raises(OSError, match="cut short"):
        write_file(tmp_path / "two", stored)
    with pytest.raises(ValueError, match="its header speaks of"):
        stored_bytes(tmp_path / "one")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "is none"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "is none"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, "not that of its shape"),
        ({"a": {"dtype": "F64", "shape": [1], "data_offsets": [-8, 0]}}, "do not follow"),
        ({"a": {"dtype": "?", "shape": [1], "data_offsets": [0, 8]}}, "invalid literal"),
    ],
)
def test_a_header_that_is_none_is_refused(header: object, message: str, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "file").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ValueError, match=message):
        stored_bytes(tmp_path / "file")

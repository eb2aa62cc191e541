"""One safetensors file: where its tensors lie, and writing one, in part from bytes of others.

Only what has tensors in memory imports torch.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from megagrow.runtime.files import copy_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn", "I16": "int16", "F16": "float16", "BF16": "bfloat16",
    "I32": "int32", "F32": "float32", "F64": "float64", "I64": "int64",
}  # fmt: skip
"""Dtypes by their names in the format, in the order in which the library puts them in a file, from
the end to the start."""

_NAMES = {name: code for code, name in TORCH_NAMES.items()}
_ORDER = {code: place for place, code in enumerate(reversed(TORCH_NAMES))}
_BLOCK = 1 << 17
"""Bytes of one write from memory, each up to a multiple of it: enough for a page cache with large
pages. Larger ones were slower by far where free memory is in pieces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBytes:
    """A tensor in a file, not read."""

    file: Path
    """The file."""

    start: int
    """Its first byte there."""

    nbytes: int
    """How many it has."""

    code: str
    """Its dtype, as the format calls it."""

    shape: tuple[int, ...]
    """Its size."""


Content: TypeAlias = "Tensor | StoredBytes"
"""What is written: a tensor in memory, or one that lies in a file."""


def torch_name(dtype: torch.dtype) -> str:
    """A dtype's name, such as `bfloat16`, for where torch is not imported."""
    return str(dtype).removeprefix("torch.")


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of that name; imports torch."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def itemsize(name: str) -> int:
    """Bytes of an element of the dtype of that name."""
    return _bits(_NAMES[name]) // 8


def stored_bytes(path: Path) -> dict[str, StoredBytes]:
    """Where the tensors of a file lie, by its header.

    Here and not by the library, which imports numpy or torch for it.

    Raises:
        ValueError: the file is damaged or cut short.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 + length:
            raise ValueError("its header is longer than the file")
        header = json.loads(stream.read(length))
    try:
        header.pop("__metadata__", None)
        found = {key: _stored(path, 8 + length, entry) for key, entry in header.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its header is none: {error!r}") from None
    end = 8 + length
    for stored in sorted(found.values(), key=lambda stored: (stored.start, stored.nbytes)):
        if stored.start != end:
            raise ValueError("its tensors do not follow one another")
        end += stored.nbytes
    if end != size:
        raise ValueError(f"it has {size} bytes, and its header speaks of {end}")
    return found


def _stored(path: Path, start: int, entry: Any) -> StoredBytes:
    shape, code = tuple(map(int, entry["shape"])), str(entry["dtype"])
    begin, end = map(int, entry["data_offsets"])
    nbytes = math.prod(shape) * _bits(code) // 8
    if min(shape, default=0) < 0 or end - begin != nbytes:
        raise ValueError("a tensor's size is not that of its shape")
    return StoredBytes(file=path, start=start + begin, nbytes=nbytes, code=code, shape=shape)


def write_file(path: Path, tensors: Mapping[str, Content]) -> None:
    """Writes a file, byte for byte as `safetensors.torch.save_file` does.

    Args:
        path: the file, which must not exist.
        tensors: what it holds, by key. Tensors are contiguous; several may share their memory.

    Raises:
        OSError: it cannot be written, or a file that is copied from is shorter than it was.
    """
    entries = {key: _entry(content) for key, content in tensors.items()}
    keys = sorted(tensors, key=lambda key: (_ORDER[entries[key]["dtype"]], key))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key in keys:
        begin, end = end, end + tensors[key].nbytes
        header[key] = entries[key] | {"data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb", buffering=0) as stream:
        _write(stream, memoryview(len(text).to_bytes(8, "little") + text))
        for key in keys:
            content = tensors[key]
            if isinstance(content, StoredBytes):
                _copy(stream, content)
            else:
                _write(stream, _bytes(content))


def _write(stream: io.FileIO, content: memoryview) -> None:
    while content:
        room = _BLOCK - stream.tell() % _BLOCK
        content = content[stream.write(content[:room]) :]


def _copy(stream: io.FileIO, content: StoredBytes) -> None:
    with content.file.open("rb", buffering=0) as source:
        source.seek(content.start)
        try:
            copy_bytes(source.fileno(), stream.fileno(), content.nbytes)
        except EOFError:
            raise OSError(f"{content.file} was cut short while it was read") from None


def _entry(content: Content) -> dict[str, Any]:
    if isinstance(content, StoredBytes):
        return {"dtype": content.code, "shape": list(content.shape)}
    return {
        "dtype": _NAMES[torch_name(content.dtype)],
        "shape": list(content.shape),
    }


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _bits(code: str) -> int:
    """Bits of an element: the number in the dtype's name."""
    return 8 if code == "BOOL" else int(code.split("_")[0].lstrip("BFIUC"))

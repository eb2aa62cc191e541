"""Folders of safetensors files, with or without an index, read and written tensor by tensor.

Never a pickle: reading one runs whatever code its author put there.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from megagrow.conversion.safetensors_file import (
    TORCH_NAMES,
    Content,
    StoredBytes,
    stored_bytes,
    torch_dtype,
    write_file,
)
from megagrow.errors import CheckpointError
from megagrow.runtime.files import write_atomically

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 1000**3
"""Largest file that is written, unless one tensor is larger."""


class SafetensorsReader:
    """The tensors of a folder that holds `model.safetensors`, or an index and its files.

    Args:
        folder: the folder.

    Raises:
        CheckpointError: no such files, an index that does not fit them, or a damaged file.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._stored: dict[str, dict[str, StoredBytes]] = {}
        self._files: dict[str, Any] = {}
        self._places = self._find()

    def keys(self) -> Iterable[str]:
        """Names of the tensors."""
        return self._places.keys()

    def stored(self, key: str) -> StoredBytes:
        """Where a tensor lies, from its file's header."""
        return self._headers(self._places[key])[key]

    def shape(self, key: str) -> tuple[int, ...]:
        """Size of a tensor, from its file's header."""
        return self.stored(key).shape

    def dtype_name(self, key: str) -> str:
        """Dtype of a tensor, from its file's header, by its name in torch: `bfloat16`."""
        code = self.stored(key).code
        if code not in TORCH_NAMES:
            raise CheckpointError(
                f"{self._folder}: {key} has the dtype {code}, which is not known."
            )
        return TORCH_NAMES[code]

    def dtype(self, key: str) -> torch.dtype:
        """Dtype of a tensor, from its file's header."""
        return torch_dtype(self.dtype_name(key))

    def tensor(self, key: str) -> Tensor:
        """One tensor; only its own bytes are read."""
        name = self._places[key]
        try:
            if name not in self._files:
                self._files[name] = safe_open(self._folder / name, framework="pt", device="cpu")
            tensor: Tensor = self._files[name].get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise self._damaged(name, error) from None
        return tensor

    def _find(self) -> dict[str, str]:
        index, single = self._folder / INDEX, self._folder / SINGLE
        if index.is_file():
            return self._read_index(index)
        if single.is_file():
            return dict.fromkeys(self._headers(SINGLE), SINGLE)
        raise CheckpointError(f"{self._folder}: {self._what_instead()}")

    def _what_instead(self) -> str:
        if not self._folder.is_dir():
            return (
                "there is no such folder. Fetch a model first, for example with "
                "`hf download OWNER/NAME --local-dir DIR`."
            )
        names = {path.name for path in self._folder.iterdir()}
        pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")))
        if pickles:
            return (
                f"{pickles[0]} is a pickle, which can run any code when it is read; only "
                "safetensors are. Many models have both: fetch the folder again with its "
                "*.safetensors. Else, if you trust the author, rewrite it with transformers: "
                "`AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OTHER)`."
            )
        if "adapter_config.json" in names:
            return (
                "these are adapters, not a model. Merge them into their model with PEFT "
                "(`merge_and_unload`), save that, and convert it."
            )
        return f"neither {SINGLE} nor {INDEX} is there. Give the folder that config.json is in."

    def _read_index(self, index: Path) -> dict[str, str]:
        try:
            places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            places = {str(key): str(file) for key, file in places.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(index.name, error) from None
        for name in sorted(set(places.values())):
            if Path(name).name != name:
                raise CheckpointError(f"{index}: {name!r} is not the name of a file beside it.")
            if not (self._folder / name).is_file():
                raise CheckpointError(
                    f"{self._folder}: {name} is missing, and {INDEX} names it. Fetch it again."
                )
            stored = self._headers(name)
            lost = [key for key, file in places.items() if file == name and key not in stored]
            if lost:
                raise CheckpointError(
                    f"{self._folder}: {name} has no tensor {lost[0]}, and {INDEX} says so. Fetch "
                    "both again."
                )
        return places

    def _headers(self, name: str) -> Mapping[str, StoredBytes]:
        if name not in self._stored:
            try:
                self._stored[name] = stored_bytes(self._folder / name)
            except (ValueError, OSError) as error:
                raise self._damaged(name, error) from None
        return self._stored[name]

    def _damaged(self, name: str, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self._folder / name} is damaged or cut short: {error}. Fetch it again."
        )


class SafetensorsWriter:
    """Writes a folder of safetensors: complete or absent, in the memory of one file.

    A context manager; the folder appears when the block ends, and does not if it raises. Any other
    file of the folder is put into `folder` inside the block.

        with SafetensorsWriter("out") as writer:
            writer.add("model.norm.weight", tensor)
            (writer.folder / "config.json").write_text(...)

    Args:
        output: the folder to be; must not exist, or be empty.
        shard_bytes: how many bytes of tensors to collect in one file.
        needed_bytes: about what will be written; 0: not known.

    Raises:
        CheckpointError: there is something already, no room, or it cannot be written.
    """

    def __init__(
        self, output: str | Path, *, shard_bytes: int = SHARD_BYTES, needed_bytes: int = 0
    ) -> None:
        self._output = Path(output)
        self._shard_bytes = shard_bytes
        self._waiting: dict[str, Content] = {}
        self._waiting_bytes = 0
        self._shards = 0
        self._places: dict[str, int] = {}
        self._total_bytes = 0
        self.folder = new_folder(self._output, needed_bytes)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, key: str, content: Content) -> None:
        """Takes a tensor; it must not change before the block ends.

        Args:
            key: its name.
            content: the tensor, or where it lies in another file: then its bytes are copied, and
                take no memory.

        Raises:
            ValueError: the key was added before.
        """
        if key in self._places:
            raise ValueError(f"{key} is there already")
        if self._waiting and self._waiting_bytes + content.nbytes > self._shard_bytes:
            self._flush()
        if not isinstance(content, StoredBytes):
            content = content.detach().cpu().contiguous()
            if content.untyped_storage().nbytes() != content.nbytes:
                content = content.clone()  # else it would keep alive what it is a part of
        self._waiting[key] = content
        self._places[key] = self._shards
        self._waiting_bytes += content.nbytes

    def _flush(self) -> None:
        with _writing(self._output):
            write_file(self.folder / f"shard-{self._shards}", self._waiting)
        self._shards += 1
        self._total_bytes += self._waiting_bytes
        self._waiting, self._waiting_bytes = {}, 0

    def _finish(self) -> None:
        if self._waiting or not self._shards:
            self._flush()
        count = self._shards
        names = [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
        with _writing(self._output):
            for number, name in enumerate(names if count > 1 else [SINGLE]):
                (self.folder / f"shard-{number}").rename(self.folder / name)
            if count > 1:
                places = {key: names[number] for key, number in self._places.items()}
                index = {"metadata": {"total_size": self._total_bytes}, "weight_map": places}
                write_atomically(self.folder / INDEX, json.dumps(index, indent=2) + "\n")
        publish_folder(self.folder, self._output)


def new_folder(output: Path, needed_bytes: int = 0) -> Path:
    """A temporary folder beside `output`, to be filled and then given to `publish_folder`.

    Raises:
        CheckpointError: `output` holds something, or there is no room for `needed_bytes`.
    """
    output = output.absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"{output} is there already: give another --output, or remove it.")
    with _writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output.parent).free
        if free < needed_bytes:
            raise CheckpointError(
                f"{output}: about {needed_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB "
                "are free. Make room, or write to another disk."
            )
        folder = output.parent / f".{output.name}.partial-{secrets.token_hex(4)}"
        folder.mkdir()
    return folder


def publish_folder(folder: Path, output: Path) -> None:
    """Gives a complete temporary folder its final name."""
    with _writing(output):
        if output.is_dir():
            output.rmdir()
        folder.rename(output)


@contextlib.contextmanager
def _writing(output: Path) -> Any:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{output} cannot be written: {error}. Make room, or give another --output."
        ) from error


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON file that holds an object.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: a Hugging Face folder needs it. Fetch it again."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Fetch it again.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no JSON object. Fetch it again.")
    return found

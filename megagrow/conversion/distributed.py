"""Our checkpoints (megatron-core's distributed format), tensor by tensor, without processes.

The index of that format, `.metadata`, is a pickle, as it is for every load of a checkpoint: read
only checkpoints whose author you trust. The tensors themselves are read without pickled code
(`weights_only`).
"""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_saver import save

from megagrow.checkpoint.guard import guarded
from megagrow.checkpoint.keys import MASTER
from megagrow.conversion.layout import TensorSource
from megagrow.conversion.safetensors_file import torch_name
from megagrow.errors import CheckpointError

_FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
_DAMAGE = (EOFError, ValueError, pickle.UnpicklingError)
_MEND = "Give another checkpoint of the run: older ones lie beside it."


class CheckpointReader:
    """The tensors of a checkpoint, whatever layout it was saved under.

    Args:
        folder: one checkpoint.
        masters: read the fp32 master weights where there are some, instead of bf16 weights.

    Raises:
        CheckpointError: it cannot be read.
    """

    def __init__(self, folder: str | Path, *, masters: bool = False) -> None:
        self._folder = Path(folder)
        self._reader = FileSystemReader(self._folder)
        with guarded(self._folder, "reading", _MEND):
            try:
                self._metadata = self._reader.read_metadata()
            except (*_DAMAGE, AttributeError, ImportError) as error:
                raise self._damaged("its index", error) from None
        self._reader.set_up_storage_reader(self._metadata, True)
        self._stored: dict[str, TensorStorageMetadata] = {
            key: entry
            for key, entry in self._metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        self._masters = masters

    def keys(self) -> Iterable[str]:
        """Names of all tensors: weights, and the optimizer's (`optimizer.state. ...`)."""
        return self._stored.keys()

    def shape(self, key: str) -> tuple[int, ...]:
        """Size of a tensor, unsplit."""
        return tuple(self._stored[key].size)

    def dtype(self, key: str) -> torch.dtype:
        """Dtype of a tensor."""
        dtype: torch.dtype = self._stored[self._place(key)].properties.dtype
        return dtype

    def dtype_name(self, key: str) -> str:
        """The same, by its name in torch."""
        return torch_name(self.dtype(key))

    def tensor(self, key: str) -> Tensor:
        """One tensor, whole.

        Raises:
            CheckpointError: its file is missing or damaged.
        """
        key = self._place(key)
        target = {key: torch.empty(self.shape(key), dtype=self.dtype(key))}
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        planner.set_up_planner(target, self._metadata, True)
        with guarded(self._folder, "reading", _MEND):
            try:
                plan = self._reader.prepare_local_plan(planner.create_local_plan())
                self._reader.read_data(plan, planner).wait()
            except (*_DAMAGE, RuntimeError) as error:
                raise self._damaged(key, error) from None
        return target[key]

    def _damaged(self, what: str, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self._folder}: {what} is damaged: {error!r}. {_MEND}")

    def _place(self, key: str) -> str:
        return MASTER + key if self._masters and MASTER + key in self._stored else key


def write_checkpoint(
    source: TensorSource,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Writes weights into an empty folder, for `sharded.load` to read with zero moments.

    Each weight is there twice: as a weight, and in fp32 as the master weight that a bf16 run starts
    from. One tensor is in memory at a time; no process group is needed.

    Args:
        source: tensors under megatron-core's keys.
        folder: where to.
        dtype: of the weights; None: as `source` gives them.
        progress: told the number of weights that are done.

    Raises:
        CheckpointError: it cannot be written.
    """
    state: dict[str, Tensor] = {}
    for key in source.keys():  # noqa: SIM118 - no mapping
        size = source.shape(key)
        state[key] = torch.empty(size, dtype=dtype or source.dtype(key), device="meta")
        state[MASTER + key] = torch.empty(size, dtype=torch.float32, device="meta")
    # A file for each tensor: torch keeps all that go into one file in memory.
    writer = FileSystemWriter(folder, single_file_per_rank=False, thread_count=1)
    with guarded(folder, "writing", "Make room, or write to another disk."), _without_processes():
        save(state, storage_writer=writer, planner=_OneByOne(source, progress), no_dist=True)
        torch.save({}, folder / "common.pt")
        (folder / "metadata.json").write_text(json.dumps(_FORMAT), encoding="utf-8")


@contextlib.contextmanager
def _without_processes() -> Iterator[None]:
    """For what torch warns of, and is meant here: that no process group is there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


class _OneByOne(DefaultSavePlanner):
    """Takes each tensor from its source when its turn has come to be written."""

    def __init__(self, source: TensorSource, progress: Callable[[int], None]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._source = source
        self._progress = progress
        self._done = 0
        self._last: tuple[str, Tensor] | None = None

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The tensor of a key; a weight and its master follow one another."""
        key = index.fqn.removeprefix(MASTER)
        if self._last is None or self._last[0] != key:
            self._last = key, self._source.tensor(key)
            self._done += 1
            self._progress(self._done)
        tensor = self._last[1]
        return tensor.to(self.state_dict[index.fqn].dtype)

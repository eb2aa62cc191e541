"""A bucket as training sequences that never run out.

An epoch is a megatron-core ``GPTDataset``: documents in a random order, cut into sequences, these
again in a random order. Each epoch has its own seed, made from the run's seed, the bucket's name
and the number of the epoch, so it can be rebuilt anywhere and depends on nothing else. A bucket
gives every one of its sequences once before the next epoch begins.

The tokens after the last whole sequence of an epoch, fewer than ``seq_length``, are left out of
it; as documents are ordered anew, they are others in each epoch.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import numpy.typing as npt
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import Split

from megagrow.config.schema import DataConfig
from megagrow.data.buckets import Bucket
from megagrow.data.documents import open_documents
from megagrow.errors import DataError
from megagrow.runtime import failure, processes

BucketSplit = Literal["train", "validation"]

#: GPTDataset silently turns its padding id into token 0. Sequences here are never padded, so this
#: is one that no file can hold, and a stray -1 stays visible.
_NO_PADDING = -(2**62)


def open_datasets(
    buckets: Mapping[str, Bucket],
    data: DataConfig,
    *,
    seq_length: int,
    vocab_size: int,
    seed: int,
    split: BucketSplit = "train",
) -> dict[str, BucketDataset]:
    """One :class:`BucketDataset` per bucket, with the config's held-out share and cache folder.

    Raises:
        DataError: a bucket's part has too few tokens for one sequence.
    """
    cache = Path(data.path) / "index_cache" if data.cache is None else Path(data.cache)
    return {
        name: BucketDataset(
            bucket,
            seq_length=seq_length,
            vocab_size=vocab_size,
            seed=seed,
            validation_fraction=data.validation_fraction,
            cache=cache,
            split=split,
        )
        for name, bucket in buckets.items()
    }


class BucketDataset:
    """The sequences of one bucket's training or validation documents.

    ``dataset[k]`` is defined for every k from 0: sequence ``k % len`` of epoch ``k // len``.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        seq_length: int,
        vocab_size: int,
        seed: int,
        validation_fraction: float,
        cache: str | Path,
        split: BucketSplit = "train",
    ) -> None:
        """Opens the files and divides the documents; builds no index yet.

        Args:
            bucket: From :func:`megagrow.data.buckets.open_buckets`, which has checked it.
            seq_length: Tokens in a sequence.
            vocab_size: Number of token ids.
            seed: The run's seed: decides which documents are held out, and every order.
            validation_fraction: Share of the documents held out, at least one of them if not 0.
            cache: Folder for index files; made when needed.
            split: Which of the two parts this is.

        Raises:
            DataError: the part has too few tokens for one sequence.
        """
        self.bucket = bucket
        self.split: BucketSplit = split
        self.seq_length = seq_length
        self._vocab_size = vocab_size
        self._seed = seed
        self._validation_fraction = validation_fraction
        self._cache = Path(cache)
        self._documents = open_documents(bucket)
        self._indices = self._choose_documents()
        self.tokens = int(self._documents.sequence_lengths[self._indices].sum(dtype=np.int64))
        self._length = (self.tokens - 1) // seq_length
        if self._length < 1:
            raise DataError(self._too_small())
        self._open: dict[int, GPTDataset] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Sequences in one epoch."""
        return self._length

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        """The ``seq_length + 1`` tokens of sample ``index``: inputs, and labels one further on."""
        if index < 0:
            raise IndexError(f"sample {index}: samples are counted from 0")
        epoch, number = divmod(index, self._length)
        sample = self._epoch(epoch)[number]
        tokens = np.empty(self.seq_length + 1, dtype=np.int64)
        tokens[:-1] = sample["tokens"].numpy()
        tokens[-1] = sample["labels"][-1]
        return tokens

    def prepare(self, epochs: Iterable[int]) -> None:
        """Builds the index files of these epochs, once, on the main rank; all ranks call it.

        Epochs that were not prepared are built when they are first read, without waiting for other
        ranks: by the main rank into the cache, by the others each in its own memory.

        Raises:
            DataError: the cache folder cannot be written; on every rank.
        """
        for epoch in epochs:
            # The others' wait is bounded by a time limit: one epoch at a time.
            with failure.together():
                if processes.is_main() and self._cached(epoch) is None:
                    self._build(epoch)

    def _epoch(self, epoch: int) -> GPTDataset:
        with self._lock:
            if epoch not in self._open:
                dataset = self._cached(epoch)
                if dataset is None and processes.is_main():
                    self._build(epoch)
                    dataset = self._cached(epoch)
                if dataset is None:
                    dataset = self._gpt_dataset(epoch, cache="")
                # Two: a batch may straddle an epoch's end. More would only hold memory.
                for old in sorted(self._open)[:-1]:
                    del self._open[old]
                self._open[epoch] = dataset
            return self._open[epoch]

    def _cached(self, epoch: int) -> GPTDataset | None:
        """The epoch with its index files mapped into memory, or None if they are not all there."""
        dataset = self._gpt_dataset(epoch, cache=str(self._cache), defer=True)
        shapes = {
            "document_index": (len(self._indices),),
            "sample_index": (self._length + 1, 2),
            "shuffle_index": (self._length,),
        }
        for name, shape in shapes.items():
            try:
                # Mapped here: GPTDataset itself would unpickle a file that is no array.
                index = np.load(
                    getattr(dataset, f"path_to_{name}"), mmap_mode="r", allow_pickle=False
                )
            except (OSError, ValueError, EOFError):
                return None
            if index.shape != shape:
                return None
            setattr(dataset, name, index)
        return dataset

    def _build(self, epoch: int) -> None:
        """Index files appear in the cache whole or not at all: built aside, then renamed."""
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".building-", dir=self._cache) as aside:
                self._gpt_dataset(epoch, cache=aside)
                for file in sorted(Path(aside).iterdir()):
                    file.replace(self._cache / file.name)
        except OSError as error:
            raise DataError(
                f"bucket {self.bucket.name!r}: its index cannot be written to {self._cache}: "
                f"{error}; free space there, or set data.cache to another folder"
            ) from error

    def _gpt_dataset(self, epoch: int, cache: str, defer: bool = False) -> GPTDataset:
        fraction = self._validation_fraction
        config = GPTDatasetConfig(
            random_seed=self._derived_seed("epoch", self.split, epoch),
            sequence_length=self.seq_length,
            # Only enters the name of the cached files; the documents are chosen here.
            blend=([*self.bucket.prefixes], None),
            split=f"{1.0 - fraction:.9f},{fraction:.9f},0",
            path_to_cache=cache,
            defer_npy_index_mmap=defer,
            tokenizer=SimpleNamespace(
                vocab_size=self._vocab_size,
                pad=_NO_PADDING,
                eod=-1,
                unique_identifiers={"vocab_size": self._vocab_size},
            ),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
        )
        # The path also only names the cached files. By content and seed: data may move.
        path = f"{self.bucket.name} {self.bucket.fingerprint} {self.split} {self._seed}"
        split = Split.train if self.split == "train" else Split.valid
        return GPTDataset(self._documents, path, self._indices, None, split, config)

    def _choose_documents(self) -> npt.NDArray[np.int32]:
        count = len(self._documents)
        held_out = 0
        if self._validation_fraction > 0.0:
            held_out = min(max(round(count * self._validation_fraction), 1), count - 1)
        # RandomState's streams are frozen for good, those of Generator may change with numpy.
        random = np.random.RandomState(self._derived_seed("validation"))
        order = random.permutation(np.arange(count, dtype=np.int32))
        chosen = order[:held_out] if self.split == "validation" else order[held_out:]
        return np.sort(chosen)

    def _derived_seed(self, *purpose: str | int) -> int:
        text = repr((self._seed, self.bucket.name, *purpose))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    def _too_small(self) -> str:
        needed = self.seq_length + 1
        documents = f"{len(self._indices)} of {len(self._documents)} documents"
        what = (
            f"the {self.split} part of bucket {self.bucket.name!r} has {self.tokens} tokens "
            f"({documents}), a sequence and its last label take {needed}"
        )
        if self.split == "validation":
            return (
                f"{what}: raise data.validation_fraction ({self._validation_fraction:g}), set it "
                "to 0, or add documents"
            )
        return f"{what}: add data, lower model.seq_length or data.validation_fraction"

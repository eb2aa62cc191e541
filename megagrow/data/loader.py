"""Samples on their way to the model: read ahead in a thread, checked, put on the device.

Sequences are packed: documents follow each other and attention is causal over all of them, as in
Megatron's GPT training. So there is no mask to move (``attention_mask=None``), positions run from 0
and every label counts; those two tensors are made once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from megagrow.curriculum import Sample
from megagrow.errors import DataError, LayoutError
from megagrow.runtime import device as runtime_device

State = TypeVar("State")


class SequenceSource(Protocol):
    """What the reader needs of a :class:`megagrow.data.dataset.BucketDataset`."""

    def __getitem__(self, index: int, /) -> npt.NDArray[np.int64]:
        """``seq_length + 1`` tokens of sample ``index``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """What a forward pass takes; every tensor is ``[micro_size, seq_length]``, on the device."""

    tokens: torch.Tensor
    """Input ids, int64."""

    labels: torch.Tensor
    """The id after each input, int64."""

    position_ids: torch.Tensor
    """0 to seq_length - 1 in every row, int64; shared by micro-batches, not to be written to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch(Generic[State]):
    """This rank's share of one optimizer step."""

    micro_batches: tuple[MicroBatch, ...]
    """In order; none on ranks that do not read."""

    state: State
    """What came with the samples: the sampler's state after them, to be saved with the step."""


class BatchReader:
    """Turns lists of samples into micro-batches on the device, one batch ahead of the consumer."""

    def __init__(
        self,
        datasets: Mapping[str, SequenceSource],
        *,
        seq_length: int,
        vocab_size: int,
        reads: bool = True,
        device: torch.device | None = None,
    ) -> None:
        """Prepares; reads nothing yet.

        Args:
            datasets: Bucket name to its sequences.
            seq_length: Tokens in a sequence.
            vocab_size: Ids at or above it are refused.
            reads: Whether this rank needs data: the first and the last pipeline stage do. Others
                get empty batches, so that their loop can be the same.
            device: Where tensors go; by default this process's device.
        """
        self._datasets = datasets
        self._seq_length = seq_length
        self._vocab_size = vocab_size
        self._reads = reads
        self._device = runtime_device.device() if device is None else device
        self._positions: dict[int, torch.Tensor] = {}

    def read(
        self, source: Iterable[tuple[Sequence[Sample], State]], micro_size: int
    ) -> Iterator[Batch[State]]:
        """Batches for the ``(samples, state)`` pairs of ``source``, in their order.

        ``source`` is advanced in another thread, one batch ahead. A batch that was read ahead and
        never taken is lost with no harm: the state of the last batch taken does not include it.
        Close the iterator, or use it up, to end the thread.

        Args:
            source: Samples of this data-parallel rank, per optimizer step.
            micro_size: Sequences per micro-batch.

        Raises:
            LayoutError: the samples do not divide into micro-batches.
            DataError: a token id is beyond the vocabulary.
            Exception: whatever ``source`` or a dataset raises, at the batch it concerns.
        """
        steps = iter(source)

        def read_next() -> tuple[torch.Tensor | None, State] | None:
            try:
                samples, state = next(steps)
            except StopIteration:
                return None  # a future cannot carry StopIteration
            return self._gather(samples, micro_size), state

        pool = ThreadPoolExecutor(1, thread_name_prefix="batch-reader", initializer=self._enter)
        try:
            ahead = pool.submit(read_next)
            while (current := ahead.result()) is not None:
                ahead = pool.submit(read_next)
                tokens, state = current
                yield Batch(micro_batches=self._split(tokens, micro_size), state=state)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _enter(self) -> None:
        # A new thread starts on GPU 0; pinning memory there would open a context on it.
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def _gather(self, samples: Sequence[Sample], micro_size: int) -> torch.Tensor | None:
        """Tokens of the samples in host memory, ``[samples, seq_length + 1]``; pinned for a GPU."""
        if len(samples) % micro_size:
            raise LayoutError(
                f"{len(samples)} sequences of a data-parallel rank do not divide into "
                f"micro-batches of {micro_size}: make batch.global_size a multiple of micro_size x "
                "data-parallel size"
            )
        if not self._reads:
            return None
        tokens = torch.empty(
            (len(samples), self._seq_length + 1),
            dtype=torch.int64,
            pin_memory=self._device.type == "cuda",
        )
        rows = tokens.numpy()
        for row, (bucket, index) in enumerate(samples):
            rows[row] = self._datasets[bucket][index]
        self._check(rows, samples)
        return tokens

    def _check(self, rows: npt.NDArray[np.int64], samples: Sequence[Sample]) -> None:
        if rows.size == 0 or (rows.max() < self._vocab_size and rows.min() >= 0):
            return
        row, column = np.argwhere((rows >= self._vocab_size) | (rows < 0))[0]
        bucket, index = samples[int(row)]
        held = getattr(self._datasets[bucket], "bucket", None)
        files = f" ({', '.join(held.prefixes)})" if held is not None else ""
        raise DataError(
            f"bucket {bucket!r}{files}: token id {int(rows[row, column])} in sample {index} "
            f"is not in the vocabulary of {self._vocab_size}: set model.vocab_size to that of the "
            "tokenizer that wrote the data, or tokenize again"
        )

    def _split(self, tokens: torch.Tensor | None, micro_size: int) -> tuple[MicroBatch, ...]:
        if tokens is None:
            return ()
        # One copy for the whole share, on the stream that will use it; the pinned memory is not
        # reused before the copy is done (torch's host allocator sees to it).
        moved = tokens.to(self._device, non_blocking=True)
        position_ids = self._position_ids(micro_size)
        return tuple(
            MicroBatch(
                tokens=part[:, :-1].contiguous(),
                labels=part[:, 1:].contiguous(),
                position_ids=position_ids,
            )
            for part in moved.split(micro_size)
        )

    def _position_ids(self, rows: int) -> torch.Tensor:
        if rows not in self._positions:
            positions = torch.arange(self._seq_length, dtype=torch.int64, device=self._device)
            self._positions[rows] = positions.expand(rows, self._seq_length)
        return self._positions[rows]

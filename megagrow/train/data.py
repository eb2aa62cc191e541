"""The data of a run: its buckets, opened and checked, and the batches of a stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from megagrow.config import RunConfig
from megagrow.curriculum import SamplerState, begin_stage, epochs, next_batch, rank_share
from megagrow.data.buckets import Bucket, check_visible, open_buckets
from megagrow.data.dataset import BucketDataset, open_datasets
from megagrow.data.loader import Batch, BatchReader
from megagrow.plan.schedule import RunPlan, StagePlan
from megagrow.runtime import failure, groups


@dataclass(frozen=True, kw_only=True, slots=True)
class RunData:
    """Opened buckets."""

    training: Mapping[str, BucketDataset]
    """Training part of each bucket."""

    validation: Mapping[str, BucketDataset]
    """Held-out part of each bucket; empty if nothing is held out."""

    fingerprints: Mapping[str, str]
    """What each bucket holds, to notice on resume that it changed."""

    epochs: Mapping[str, float]
    """How often the run goes through each bucket."""


def open_data(config: RunConfig, plan: RunPlan) -> RunData:
    """Opens and checks every bucket, and builds its index files; call on every rank.

    Rank 0 reads what there is to check and tells the others, which only open the files.

    Raises:
        DataError: anything that would stop the run later: a missing, truncated or empty bucket,
            ids beyond the vocabulary, too few tokens, files that a process does not see.
    """
    model = config.model
    buckets = failure.on_main(lambda: open_buckets(config.data, model.seq_length, model.vocab_size))
    with failure.together():
        check_visible(buckets)
        training = _datasets(config, buckets, "train")
        held_out = bool(config.data.validation_fraction)
        validation = _datasets(config, buckets, "validation") if held_out else {}
    samples = [
        (stage.config, stage.steps * stage.config.batch.global_size)
        for stage in plan.stages
        if stage.steps
    ]
    taken = epochs(samples, {name: len(dataset) for name, dataset in training.items()})
    for name, dataset in training.items():
        dataset.prepare(range(int(-(-taken.get(name, 0.0) // 1))))
    for dataset in validation.values():
        dataset.prepare([0])
    fingerprints = {name: bucket.fingerprint for name, bucket in buckets.items()}
    return RunData(
        training=training, validation=validation, fingerprints=fingerprints, epochs=taken
    )


def stage_batches(
    config: RunConfig, data: RunData, stage: StagePlan, state: SamplerState
) -> Iterator[Batch[SamplerState]]:
    """The stage's remaining batches for this rank, each with the sampler's state after it.

    Close the iterator when done with it: it reads ahead in a thread.
    """
    rank, ranks = groups.data_rank(), groups.data_size()
    reader = BatchReader(
        data.training,
        seq_length=config.model.seq_length,
        vocab_size=config.model.vocab_size,
        reads=groups.is_first_stage() or groups.is_last_stage(),
    )
    size = stage.config.batch.global_size
    total = stage.steps * size

    def shares() -> Iterator[tuple[object, SamplerState]]:
        current = state if state.stage == stage.index else begin_stage(state, stage.index)
        while current.samples < total:
            samples, current = next_batch(current, stage.config, size, total)
            yield rank_share(samples, rank, ranks), current

    return reader.read(shares(), stage.config.batch.micro_size)  # type: ignore[arg-type]


def _datasets(
    config: RunConfig, buckets: Mapping[str, Bucket], split: str
) -> dict[str, BucketDataset]:
    return open_datasets(
        buckets,
        config.data,
        seq_length=config.model.seq_length,
        vocab_size=config.model.vocab_size,
        seed=config.seed,
        split=split,  # type: ignore[arg-type]
    )

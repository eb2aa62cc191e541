"""Validation loss: the plain mean over held-out sequences, however the model is spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megagrow.config import RunConfig
from megagrow.data.writer import BucketWriter
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import LENGTH, STEP, VOCABULARY, config_of, stage

OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual buckets, and `tiny`, with three held-out sequences."""
    folder = layouts.write_buckets(tmp_path_factory.mktemp("buckets"))
    random = np.random.RandomState(4)
    with BucketWriter(folder / "tiny", vocab_size=VOCABULARY, eod=VOCABULARY - 1) as writer:
        for _ in range(10):  # 2 documents of 30 held out: 60 tokens, 3 sequences of 16
            writer.add(random.randint(0, VOCABULARY - 1, size=29))
    return folder


def make_config(buckets: Path, output: Path, parallel: dict[str, Any], **keys: Any) -> RunConfig:
    data = {"buckets": {name: [name] for name in ("easy", "hard", "tiny")}}
    rows = stage(4, 2, parallel=parallel)
    return config_of(buckets, output, rows, **{"data": data, **keys})


def _losses(config: RunConfig, sequences: int, micro_size: int) -> dict[str, float]:
    from megagrow.evaluate.validation import validation_losses
    from tests.train import parts

    run = parts.open_run(config)
    engine, _ = parts.fresh(run)
    losses = validation_losses(
        engine.chunks,
        run.data.validation,
        sequences=sequences,
        micro_size=micro_size,
        vocab_size=VOCABULARY,
    )
    assert all(chunk.training for chunk in engine.chunks)
    assert all(not parameter.main_grad.any() for parameter in parts.parameters(engine).values())
    return losses


def _direct(config: RunConfig, sequences: int) -> dict[str, float]:
    """The mean over sequences, one at a time, of the bare model's loss."""
    import torch

    from tests.train import parts

    run = parts.open_run(config)
    engine, _ = parts.fresh(run)
    model = engine.chunks[0].module.eval()
    positions = torch.arange(LENGTH)[None]
    found = {}
    for name, dataset in run.data.validation.items():
        rows = [torch.from_numpy(dataset[n]) for n in range(min(sequences, len(dataset)))]
        with torch.no_grad():
            losses = [
                model(row[None, :-1], positions, None, labels=row[None, 1:]).double().mean()
                for row in rows
            ]
        found[name] = float(torch.stack(losses).mean())
    return found


@pytest.mark.parametrize(("sequences", "micro_size"), [(8, 2), (7, 4), (1, 2), (5, 8)])
def test_loss_is_the_mean_over_the_sequences(
    world1: World, buckets: Path, tmp_path: Path, sequences: int, micro_size: int
) -> None:
    config = make_config(buckets, tmp_path, {})
    direct = world1.run(_direct, config, sequences)[0]
    assert set(direct) == {"easy", "hard", "tiny"}
    assert world1.run(_losses, config, sequences, micro_size)[0] == pytest.approx(direct, rel=1e-6)


@pytest.mark.parametrize(
    ("ranks", "parallel"),
    [
        (2, {}),
        (2, OVERLAP),
        (2, {"tensor": 2, "sequence_parallel": True}),
        (2, {"pipeline": 2, "virtual_pipeline": 2}),
        (4, {}),
        (4, {"pipeline": 2, "virtual_pipeline": 2}),
        (4, {"tensor": 2, "pipeline": 2}),
    ],
    ids=["dp2", "dp2-overlap", "tp2", "pp2", "dp4", "pp2-dp2", "tp2-pp2"],
)
def test_loss_does_not_depend_on_the_layout(
    request: pytest.FixtureRequest,
    world1: World,
    buckets: Path,
    tmp_path: Path,
    ranks: int,
    parallel: dict[str, Any],
) -> None:
    data = {"buckets": {"easy": ["easy"], "hard": ["hard"]}}
    expected = world1.run(_losses, make_config(buckets, tmp_path, {}, data=data), 8, 2)[0]
    config = make_config(buckets, tmp_path, parallel, data=data)
    for losses in request.getfixturevalue(f"world{ranks}").run(_losses, config, 8, 2):
        assert losses == pytest.approx(expected, rel=5e-7)


def test_an_interleaved_pipeline_takes_a_count_it_can_run(
    world1: World, world2: World, buckets: Path, tmp_path: Path
) -> None:
    """Six sequences are three micro-batches of two, which two stages cannot interleave."""
    config = make_config(buckets, tmp_path, {"pipeline": 2, "virtual_pipeline": 2})
    expected = world1.run(_direct, make_config(buckets, tmp_path, {}), 6)[0]
    losses = world2.run(_losses, config, 6, 2)[0]
    assert losses["easy"] == pytest.approx(expected["easy"], rel=1e-6)
    assert losses["hard"] == pytest.approx(expected["hard"], rel=1e-6)


def test_a_bucket_with_fewer_sequences_than_replicas_is_left_out(
    world2: World, world4: World, buckets: Path, tmp_path: Path, world1: World
) -> None:
    """`tiny` has three: all count alone, two over two replicas, none over four."""
    config = make_config(buckets, tmp_path, {})
    two = world2.run(_losses, config, 8, 2)
    assert two[0] == two[1]
    assert two[0]["tiny"] == pytest.approx(world1.run(_direct, config, 2)[0]["tiny"], rel=1e-6)
    for losses in world4.run(_losses, config, 8, 2):
        assert set(losses) == {"easy", "hard"}


def test_dropout_is_off(world1: World, buckets: Path, tmp_path: Path) -> None:
    plain = world1.run(_losses, make_config(buckets, tmp_path, {}), 8, 2)
    dropout = make_config(buckets, tmp_path, {}, model={"dropout": 0.5})
    assert world1.run(_losses, dropout, 8, 2) == plain


def test_evaluating_does_not_change_training(world2: World, buckets: Path, tmp_path: Path) -> None:
    """Nor does it see weights from before the last update, where their gather is put off."""

    def run(name: str, parallel: dict[str, Any], interval: int | None) -> layouts.Outcome:
        rows = stage(2, 3, parallel=parallel, mixture={"easy": 1.0})
        evaluation = {"sequences": 8, "interval": interval}
        model = {"dropout": 0.1}
        config = config_of(buckets, tmp_path / name, rows, model=model, evaluation=evaluation)
        return layouts.train(world2, config)

    often, plain, seldom = (
        run("often", OVERLAP, STEP),
        run("plain", {}, STEP),
        run("", OVERLAP, None),
    )
    assert [len(outcome.of("eval")) for outcome in (often, plain, seldom)] == [3, 3, 1]
    assert often.losses == plain.losses == seldom.losses
    assert often.evaluations == plain.evaluations
    assert often.evaluations[-2:] == seldom.evaluations

"""What a user can get wrong ends in one clear error, and costs no checkpoint."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megagrow.data.writer import BucketWriter, index_bytes, token_dtype
from tests.distributed import World
from tests.train import trial

SHORT: Mapping[str, Any] = {"stages": [trial.CONFIG["stages"][0]]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return trial.write_data(tmp_path / "data")


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory, world2: World) -> Path:
    """The folder of a run with one checkpoint, at its first step."""
    folder = tmp_path_factory.mktemp("began")
    file = trial.configure(folder, trial.shared_data(tmp_path_factory), SHORT)
    assert trial.start(world2, file, "limits.wall_time=0.001") == (75, "")
    return folder


@pytest.fixture
def copied(began: Path, tmp_path: Path) -> Path:
    """A copy of that folder to do harm to; its configuration file."""
    shutil.copytree(began, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "run.yaml"
    file.write_text(file.read_text().replace(str(began), str(tmp_path)))
    return file


def _refused(world: World, file: Path, *overrides: str, resume: str = "auto") -> str:
    """The message of a start that must fail alike on all ranks and leave all checkpoints alone."""
    run = file.parent / "run"
    before = trial.content(run / "checkpoints")
    code, message = trial.start(world, file, *overrides, resume=resume)
    assert code == 2, (code, message)
    assert "Traceback" not in message
    assert trial.content(run / "checkpoints") == before
    return message


# Checkpoints


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    file.write_bytes(content)


HARM: Mapping[str, tuple[str, Callable[[Path], None], str]] = {
    "missing": ("__1_0.distcp", Path.unlink, r"__1_0\.distcp is missing"),
    "truncated": ("__0_0.distcp", lambda f: os.truncate(f, 1000), r"is 1000 bytes long; it was"),
    "weights": ("__0_0.distcp", _flip, r"__0_0\.distcp is damaged: its checksum"),
    "metadata": (".metadata", _flip, r"\.metadata is damaged: its checksum"),
    "format": ("metadata.json", _flip, r"metadata\.json is damaged: its checksum"),
    "no state": ("state.json", Path.unlink, r"names 'step_00000001', which is not a complete"),
    "state": ("state.json", lambda f: f.write_text("{"), r"state\.json is damaged"),
    "position": (
        "state.json",
        lambda f: f.write_text(f.read_text().replace('"step": 1', '"step": 2')),  # type: ignore[dict-item]
        r"state\.json is damaged: its checksum",
    ),
}


@pytest.mark.parametrize("harm", list(HARM))
def test_a_damaged_checkpoint_is_refused(copied: Path, world2: World, harm: str) -> None:
    name, do, expected = HARM[harm]
    do(copied.parent / "run" / "checkpoints" / "step_00000001" / name)
    message = _refused(world2, copied)
    assert re.search(expected, message), message
    assert "--resume" in message  # how to mend it
    status = trial.status(copied.parent / "run")
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert status["error"] == message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train": {"step": 1}}, "the training state is damaged"),
        ({"train": None}, "the training state is damaged"),
        ({"config": {}}, "the configuration in it is damaged"),
        ({"data": 7}, "state.json is damaged"),
        ({"train.step": 4000}, "step 4000 is not in its stage"),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(
    copied: Path, world2: World, change: dict[str, Any], expected: str
) -> None:
    file = copied.parent / "run" / "checkpoints" / "step_00000001" / "state.json"
    state = json.loads(file.read_text())
    del state["crc32"]
    for key, value in change.items():
        if key == "train.step":
            state["train"]["step"] = value
        else:
            state[key] = value
    state["crc32"] = zlib.crc32(json.dumps(state, sort_keys=True).encode())
    file.write_text(json.dumps(state))
    assert expected in _refused(world2, copied)


def test_a_checkpoint_of_another_configuration_is_refused_with_the_keys_that_differ(
    copied: Path, world2: World
) -> None:
    message = _refused(world2, copied, "model.ffn_hidden_size=96", "seed=8")
    assert "step_00000001 is of another configuration:" in message
    assert "model.ffn_hidden_size: 64 in the checkpoint, 96 now" in message
    assert "seed: 7 in the checkpoint, 8 now" in message
    assert message.count(" now") == 2


def test_another_layout_of_the_same_run_is_accepted(copied: Path, world2: World) -> None:
    layout = ("parallel.pipeline=1", "parallel.tensor=2", "batch.micro_size=2")
    assert trial.start(world2, copied, *layout) == (0, "")
    assert trial.resumed_at(copied.parent / "run") == [1]


def test_data_that_changed_since_the_checkpoint_is_refused(
    copied: Path, data: Path, world2: World
) -> None:
    with BucketWriter(data / "hard", vocab_size=trial.VOCABULARY, eod=0) as writer:
        for _ in range(150):
            writer.add([1, 2, 3])
    message = _refused(world2, copied, f"data.path={data}")
    assert "the data of hard is not what the run began with" in message


def test_a_folder_to_resume_that_is_no_checkpoint_is_refused(copied: Path, world2: World) -> None:
    for folder in ("nowhere", "run"):
        message = _refused(world2, copied, resume=str(copied.parent / folder))
        assert "is not a checkpoint: it has no state.json" in message


# Data


def _truncated(data: Path) -> None:
    os.truncate(data / "easy.bin", (data / "easy.bin").stat().st_size - 2)


def _of_another(data: Path) -> None:
    shutil.copy(data / "hard.idx", data / "easy.idx")


def _beyond_the_vocabulary(data: Path) -> None:
    with BucketWriter(data / "hard", vocab_size=trial.VOCABULARY + 1, eod=0) as writer:
        for _ in range(100):
            writer.add([5] * 20 + [trial.VOCABULARY])


def _empty(data: Path) -> None:
    (data / "easy.bin").write_bytes(b"")
    none = np.array([], dtype=np.int32)
    (data / "easy.idx").write_bytes(index_bytes(none, token_dtype(trial.VOCABULARY)))


def _gone(data: Path) -> None:
    (data / "hard.bin").unlink()
    (data / "hard.idx").unlink()


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (_truncated, r"bucket 'easy': .*easy\.bin: \d+ bytes, but easy\.idx says"),
        (_of_another, r"bucket 'easy': .*easy\.bin: \d+ bytes, but easy\.idx says"),
        (_beyond_the_vocabulary, r"bucket 'hard': .*token id 128 at token 20 .*vocabulary of 128"),
        (_empty, r"bucket 'easy' is empty"),
        (_gone, r"bucket 'hard': neither .*hard\.bin nor .*hard\.idx exists"),
    ],
)
def test_bad_data_is_refused_before_the_first_step(
    tmp_path: Path, data: Path, world2: World, harm: Callable[[Path], None], expected: str
) -> None:
    harm(data)
    message = _refused(world2, trial.configure(tmp_path, data))
    assert re.search(expected, message), message
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


# Places and processes


def test_more_processes_asked_for_than_there_are(tmp_path: Path, data: Path, world2: World) -> None:
    file = trial.configure(tmp_path, data, {"parallel.tensor": 2})
    message = _refused(world2, file)
    assert re.search(r"2 processes.*tensor.*2.*pipeline.*2.*4", message), message


def test_an_output_folder_that_cannot_be_written(tmp_path: Path, data: Path, world2: World) -> None:
    (tmp_path / "file").write_text("")
    file = trial.configure(tmp_path, data, {"output": str(tmp_path / "file" / "run")})
    message = _refused(world2, file)
    assert "the run's folder cannot be written: Not a directory" in message
    assert "output" in message


def test_a_growth_scratch_that_cannot_be_written(tmp_path: Path, data: Path, world2: World) -> None:
    (tmp_path / "file").write_text("")
    scratch = f"checkpoint.growth_scratch={tmp_path / 'file' / 'scratch'}"
    file = trial.configure(tmp_path, data, {"stages.1.transition.through": "checkpoint"})
    message = _refused(world2, file, scratch)
    assert "growth cannot write there" in message
    assert "checkpoint.growth_scratch" in message
    assert trial.losses(tmp_path / "run", strict=False) == {}  # found before the first step
    assert trial.start(world2, file) == (0, "")
    # A run that will not grow any more does not look there.
    assert trial.start(world2, file, scratch) == (0, "")


# Numbers


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, data: Path, world2: World) -> None:
    rate = {"learning_rate": {"peak": 1e30}, "checkpoint.interval": trial.STEP_TOKENS}
    file = trial.configure(tmp_path, data, {**SHORT, **rate})
    code, message = trial.start(world2, file)
    assert code == 2
    assert re.search(r"step 2, stage 'small': the loss is .*, the gradient norm nan", message)
    assert "limits.on_nan=skip" in message
    assert trial.status(tmp_path / "run")["state"] == "failed"
    last = list(trial.records(tmp_path / "run"))[-1]
    assert (last["event"], last["reason"], last["step"]) == ("end", "nan", 1)
    # The checkpoint of the step before was being written: it is there, with finite weights.
    assert trial.checkpoints(tmp_path / "run") == ["step_00000001"]
    assert trial.leftovers(tmp_path / "run") == []


def test_skipping_goes_on_without_updates_until_there_were_too_many(
    tmp_path: Path, data: Path, world2: World
) -> None:
    changes = {**SHORT, "learning_rate": {"peak": 1e30}, "limits": {"on_nan": "skip"}}
    file = trial.configure(tmp_path, data, changes)
    assert trial.start(world2, file) == (0, "")
    run = tmp_path / "run"
    steps = [record for record in trial.records(run) if record["event"] == "step"]
    assert [record["grad_norm"] is None for record in steps] == [False, True, True, True, True]
    state = json.loads((run / "checkpoints" / "step_00000005" / "state.json").read_text())["train"]
    assert (state["updates"], state["skipped"], state["step"]) == (1, 4, 5)

    shutil.rmtree(run)
    code, message = trial.start(world2, file, "limits.max_skips=2")
    assert code == 2
    assert "step 4, stage 'small'" in message
    # Resumed, the skips before the checkpoint still count.
    checkpoint = trial.checkpoints(run)[-1]
    assert checkpoint == "step_00000002"
    code, message = trial.start(world2, file, "limits.max_skips=2")
    assert code == 2
    assert "step 4, stage 'small'" in message


# What the screen shows


def test_ranks_that_fail_alike_print_one_message(tmp_path: Path, data: Path) -> None:
    _truncated(data)
    with trial.Job(trial.configure(tmp_path, data), torchrun=True) as job:
        assert job.wait() == [1]
        job.assert_gone()
    ours, _, torchruns = job.output.partition("Traceback")
    assert ours.count("error: bucket 'easy'") == 1
    assert "error on rank" not in job.output
    # torchrun's own report ends with the reason.
    assert "raise ChildFailedError" in torchruns
    assert "bucket 'easy'" in torchruns.rsplit("Root Cause", 1)[-1]
    assert "exitcode  : 2" in torchruns


def test_a_rank_that_fails_alone_is_named_and_not_buried(tmp_path: Path, data: Path) -> None:
    changes = {
        "parallel.pipeline": 1,
        "data.validation_fraction": 0.0,
        "batch.global_size": 2,
        "stages.0.tokens": 4 * trial.STEP_TOKENS,
        "stages.1.layers": 2,
        "stages.1.transition": None,
        "stages.1.mixture": {"easy": 0.75, "hard": 0.25},
        "stages.1.mixture_end": None,
        "model.dropout": 0.0,
    }
    with trial.Job(trial.configure(tmp_path, data, changes)) as job:
        job.until_step(1)
        # Under the run's feet; only one of the two samples of a step is from this bucket.
        size = (data / "hard.bin").stat().st_size
        with (data / "hard.bin").open("r+b") as stream:
            stream.write(b"\xff" * size)
        codes = job.wait()
        job.assert_gone()
    assert sorted(codes) == [1, 2], job.output
    failed = codes.index(2)
    where = " on rank 1" if failed else ""
    assert job.output.count("error") == 1, job.output
    assert f"error{where}: bucket 'hard'" in job.output
    assert "token id 65535" in job.output
    assert "Traceback" not in job.output

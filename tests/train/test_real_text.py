"""A run on real English with GPT-2's tokenizer, where a corpus in DCLM's format is at hand."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from megagrow.bucketing.job import bucket
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import Settings
from tests.train import trial

SHARED = trial.ROOT.parent / "shared"
SHARDS = sorted(SHARED.glob("corpus/*.jsonl.zst"))
GPT2 = SHARED / "tokenizer" / "gpt2"
STEP_TOKENS = 8 * 128
BEFORE, AFTER = range(11, 21), range(31, 41)
"""The last steps of either stage; single losses differ by half a nat."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not SHARDS or not GPT2.is_dir(),
        reason="needs ../shared: corpus/*.jsonl.zst and tokenizer/gpt2",
    ),
]


def _prepare(folder: Path) -> None:
    """The corpus in two buckets, by the tool that users have."""
    settings = Settings(
        inputs=(str(SHARDS[0]),), output=folder, tokenizer=GPT2, levels=("easy", "hard")
    )
    bucket(settings, Progress(quiet=True))


def test_tp2_pp2_grows_on_real_text(tmp_path: Path) -> None:
    data = tmp_path / "data"
    _prepare(data)
    changes = {
        "model.vocab_size": 50257,
        "model.style": "gpt2",
        "model.num_query_groups": None,
        "model.hidden_size": 64,
        "model.ffn_hidden_size": 256,
        "model.seq_length": 128,
        "batch.global_size": 8,
        "batch.micro_size": 4,
        "parallel.tensor": 2,
        "stages.0.tokens": 20 * STEP_TOKENS,
        "stages.1.tokens": 20 * STEP_TOKENS,
        # The same text in both stages, so that their losses can be compared.
        "stages.0.mixture": {"easy": 0.5, "hard": 0.5},
        "stages.1.mixture_end": None,
        "stages.1.mixture": {"easy": 0.5, "hard": 0.5},
        "learning_rate.warmup": 4 * STEP_TOKENS,
        "checkpoint.interval": 10 * STEP_TOKENS,
        "evaluation.interval": 20 * STEP_TOKENS,
    }
    run = trial.train(trial.configure(tmp_path, data, changes), processes=4)
    losses = trial.losses(run)
    assert set(losses) == set(range(1, 41))
    assert losses[1] == pytest.approx(10.825, abs=0.15)  # ln 50257: nothing is known yet
    assert losses[20] < losses[1] - 1.5
    last, before = (fmean(losses[step] for step in steps) for steps in (AFTER, BEFORE))
    assert last < before

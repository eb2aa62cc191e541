"""A run on real English with GPT-2's tokenizer, where a corpus in DCLM's format is at hand."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from megagrow.data import tokenizer
from megagrow.data.writer import BucketWriter, write_manifest
from tests.train import trial

SHARED = trial.ROOT.parent / "shared"
SHARDS = sorted(SHARED.glob("corpus/*.jsonl.zst"))
GPT2 = SHARED / "tokenizer" / "gpt2"
DOCUMENTS = 600
STEP_TOKENS = 8 * 128

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not SHARDS or not GPT2.is_dir(),
        reason="needs ../shared: corpus/*.jsonl.zst and tokenizer/gpt2",
    ),
]


def _texts() -> Iterator[str]:
    with SHARDS[0].open("rb") as stream:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream), "utf-8")
        for line in itertools.islice(lines, DOCUMENTS):
            yield json.loads(line)["text"]


def _prepare(folder: Path) -> None:
    """Two buckets: documents of short words, and of long ones."""
    engine = Tokenizer(models.BPE.from_file(str(GPT2 / "vocab.json"), str(GPT2 / "merges.txt")))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(["<|endoftext|>"])
    engine.save(str(folder / "tokenizer.json"))
    gpt2 = tokenizer.load(folder / "tokenizer.json")
    ranked = sorted((t for t in _texts() if t), key=lambda text: len(text) / len(text.split()))
    half = len(ranked) // 2
    stats = {}
    for name, texts in (("easy", ranked[:half]), ("hard", ranked[half:])):
        with BucketWriter(folder / name, vocab_size=gpt2.vocab_size, eod=gpt2.eod) as writer:
            for ids in gpt2.encode_batch(texts):
                writer.add(ids)
        stats[name] = writer.stats
    write_manifest(folder, tokenizer=gpt2, buckets=stats, source="DCLM-like shard", seed=0)


def test_tp2_pp2_grows_on_real_text(tmp_path: Path) -> None:
    _prepare(tmp_path)
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
        "learning_rate.warmup": 4 * STEP_TOKENS,
        "checkpoint.interval": 10 * STEP_TOKENS,
        "evaluation.interval": 20 * STEP_TOKENS,
    }
    run = trial.train(trial.configure(tmp_path, tmp_path, changes), processes=4)
    losses = trial.losses(run)
    assert set(losses) == set(range(1, 41))
    assert losses[1] == pytest.approx(10.825, abs=0.15)  # ln 50257: nothing is known yet
    assert losses[20] < losses[1] - 1.5
    assert losses[40] < losses[20]

"""The benchmark's corpus and checks, and a run of everything; nothing is said about speed."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard

from megagrow.bucketing.writing import sidecar
from megagrow.data.writer import BucketWriter
from megagrow.errors import DataError
from tests.benchmarks.command import result

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["the", "weather", "of", "an", "island", "is", "told", "by", "gulls,", "27", "old", "men"]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _module("_data_checks", monkeypatch)


@pytest.fixture
def corpora(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _module("_data_corpus", monkeypatch)


def _module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmarks import each other as scripts do."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


def _write(prefix: Path, documents: Sequence[Sequence[int]], *, vocab_size: int = 100) -> Path:
    with BucketWriter(prefix, vocab_size=vocab_size, eod=0) as writer:
        for each in documents:
            writer.add(each)
    return prefix


def _shards(folder: Path, count: int = 3, rows: int = 40) -> list[Path]:
    folder.mkdir()
    random = np.random.default_rng(5)
    paths = []
    for number in range(count):
        texts = [" ".join(random.choice(WORDS, 60)) for _ in range(rows)]
        lines = [orjson.dumps({"text": f"{text} {number}", "url": "u"}) for text in texts]
        path = folder / f"{number}.jsonl.zst"
        path.write_bytes(zstandard.ZstdCompressor().compress(b"\n".join(lines) + b"\n"))
        paths.append(path)
    return paths


def _texts(path: str | Path) -> list[str]:
    data = Path(path).read_bytes()
    if str(path).endswith(".zst"):
        data = zstandard.ZstdDecompressor().decompress(data)
    return [orjson.loads(line)["text"] for line in data.splitlines()]


def test_the_same_documents_are_the_same_in_any_order_bucket_and_type(
    tmp_path: Path, checks: Any
) -> None:
    _write(tmp_path / "one", [[1, 2], [3], [1, 2]])
    _write(tmp_path / "easy", [[3]])
    _write(tmp_path / "hard", [[1, 2], [1, 2]], vocab_size=70_000)  # int32 instead of uint16
    ours = checks.multiset([tmp_path / "hard", tmp_path / "easy"])
    assert ours.total() == 3
    assert checks.difference(ours, checks.multiset([tmp_path / "one"])) == ""


@pytest.mark.parametrize(
    "documents",
    [[[1, 2], [3]], [[1, 2], [3], [1, 2], [4]], [[1], [2, 3], [1, 2]], [[1, 2], [3], [2, 1]]],
)
def test_a_document_that_is_missing_added_cut_or_changed_is_found(
    tmp_path: Path, checks: Any, documents: list[list[int]]
) -> None:
    ours = checks.multiset([_write(tmp_path / "ours", [[1, 2], [3], [1, 2]])])
    theirs = checks.multiset([_write(tmp_path / "theirs", documents)])
    assert checks.difference(ours, theirs)


def test_first_rows_are_those_of_the_first_input_file(tmp_path: Path, checks: Any) -> None:
    _write(tmp_path / "all", [[1], [2], [3], [4]])
    records = np.array([(0, 0, 0.5), (0, 2, 0.5), (1, 0, 0.5), (0, 1, 0.5)], sidecar.SIDECAR)
    np.save(sidecar.sidecar_file(tmp_path / "all"), records)
    wanted = checks.multiset([_write(tmp_path / "wanted", [[1], [4]])])
    assert checks.first_rows(tmp_path, ["all"], 2) == wanted


def test_same_bytes_looks_at_tokens_and_index(tmp_path: Path, checks: Any) -> None:
    one = _write(tmp_path / "one", [[1, 2], [3]])
    assert checks.same_bytes(one, _write(tmp_path / "two", [[1, 2], [3]]))
    assert not checks.same_bytes(one, _write(tmp_path / "other", [[1, 2], [4]]))
    index = tmp_path / "two.idx"
    index.write_bytes(index.read_bytes()[:-1] + b"\1")
    assert not checks.same_bytes(one, tmp_path / "two")


def test_both_index_writers_write_the_same(tmp_path: Path, checks: Any) -> None:
    found = checks.index({"documents": 3000, "rounds": 2, "folder": str(tmp_path)})
    assert found["same"] is True
    assert len(found["ours"]) == len(found["theirs"]) == 2


def test_a_corpus_holds_the_input_in_the_forms_that_the_contenders_take(
    tmp_path: Path, corpora: Any
) -> None:
    paths = _shards(tmp_path / "input")
    size = corpora.Size(shard_characters=0, vocabulary=300, part=7)
    corpus = corpora.prepare(tmp_path / "cache", [str(tmp_path / "input")], None, size)
    texts = [_texts(path) for path in paths]
    rows = [text for shard in texts for text in shard]
    assert corpus.shards == [str(path) for path in paths]
    assert corpus.documents == len(rows)
    assert corpus.text_bytes == sum(map(len, rows))
    assert _texts(corpus.part) == _texts(corpus.part_zst) == texts[0][:7]
    assert corpus.part_bytes == sum(map(len, texts[0][:7]))
    assert _texts(corpus.joined) == rows
    assert len(corpus.cut) == corpora.SHARDS_FOR_WORKERS
    assert [text for path in corpus.cut for text in _texts(path)] == rows
    large = [text for path in corpus.large for text in _texts(path)]
    assert len(large) == len(rows) * corpora.TIMES_LARGER == len(set(large))
    assert Counter(rows) <= Counter(large)
    made = Path(corpus.joined).stat().st_mtime_ns
    assert corpora.prepare(tmp_path / "cache", [str(tmp_path / "input")], None, size) == corpus
    assert Path(corpus.joined).stat().st_mtime_ns == made


def test_a_changed_input_makes_another_corpus(tmp_path: Path, corpora: Any) -> None:
    _shards(tmp_path / "input")
    size = corpora.Size(shard_characters=0, vocabulary=300, part=7)
    first = corpora.prepare(tmp_path / "cache", [str(tmp_path / "input")], None, size)
    _shards(tmp_path / "more", count=1, rows=3)[0].rename(tmp_path / "input" / "9.jsonl.zst")
    second = corpora.prepare(tmp_path / "cache", [str(tmp_path / "input")], None, size)
    assert second.documents == first.documents + 3
    assert second.joined != first.joined


def test_rows_without_text_are_refused(tmp_path: Path, corpora: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"url": "no text"}\n')
    size = corpora.Size(shard_characters=0, vocabulary=300, part=7)
    with pytest.raises(DataError, match="give clean files"):
        corpora.prepare(tmp_path / "cache", [str(tmp_path / "a.jsonl")], None, size)


@pytest.mark.slow
def test_every_contender_makes_the_same_documents_and_the_last_line_is_the_result(
    tmp_path: Path,
) -> None:
    _shards(tmp_path / "input")
    document = result(
        "data.py", "--cache", str(tmp_path / "cache"), "--input", str(tmp_path / "input")
    )
    assert document["ok"] is True
    assert document["wrong"] == []
    assert document["ratios"]["check/contenders with other documents"] == 0
    assert document["ratios"]["index/other bytes"] == 0
    contenders = {name: each for name, each in document["measured"].items() if "peak_mb" in each}
    assert set(contenders) == {
        "ours", "ours, steady", "ours, 3x text", "megatron", "datatrove", "megatron-fast, joined",
        "megatron-fast, by shard", "encode_files, cold", "encode_files, warm",
    }  # fmt: skip
    for figures in contenders.values():
        assert figures["text_mb_per_second"] > 0
        assert figures["peak_mb"] > 20

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("sklearn")
pytest.importorskip("nltk")
pytest.importorskip("zstandard")

import zstandard

from megagrow.difficulty import store
from megagrow.tokenization.batch import TokenBatch
from megagrow.tokenization.tokenizer import load, train_bpe
from tests.difficulty.sentences import LEVELS, text, texts
from tools.train_difficulty_classifier import build_parser, main

SMALL = [
    "--from-scratch", "--layers", "1", "--hidden-size", "32", "--vocab-size", "400",
    "--max-length", "32", "--learning-rate", "2e-3", "--device", "cpu", "--quiet",
    "--held-out", "0.25",
]  # fmt: skip


def write(path: Path, count: int) -> None:
    documents, levels = texts(count)
    rows = [
        json.dumps({"text": document, "level": LEVELS[level]})
        for document, level in zip(documents, levels, strict=True)
    ]
    path.write_bytes(zstandard.compress("\n".join(rows).encode()))


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write(folder / "shard.jsonl.zstd", 300)
    train_bpe(texts(300)[0], 600, folder / "tokenizer.json")
    return folder / "shard.jsonl.zstd"


def run(shard: Path, output: Path, *more: str, labels: Sequence[str] = ()) -> int:
    labels = labels or ["--label-field", "level", "--levels", ",".join(LEVELS)]
    return main([str(shard), "--output", str(output), *labels, *SMALL, *more])


def report(output: Path) -> dict[str, object]:
    found = json.loads((output / "report.json").read_text())["outcome"]
    assert isinstance(found, dict)
    return found


def test_labels_to_classifier_student_and_report(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    tokenizer = shard.parent / "tokenizer.json"
    assert run(shard, output, "--epochs", "12", "--lm-tokenizer", str(tokenizer)) == 0
    shown, errors = capsys.readouterr()
    assert "accuracy" in shown
    assert "linear student" in shown
    assert "warning" not in errors
    outcome = json.loads((output / "report.json").read_text())["outcome"]
    evaluation, student = outcome["evaluation"], outcome["student"]
    assert evaluation["accuracy"] > 0.8 > 0.5 > evaluation["majority"]
    assert sum(map(sum, evaluation["confusion"])) == evaluation["documents"] > 50
    assert outcome["trained_on"] + evaluation["documents"] == 300
    assert student["agreement"]["level_agreement"] > 0.8
    assert (output / "report.png").read_bytes().startswith(b"\x89PNG")

    documents = [text(LEVELS[index % 3], 7000 + index) for index in range(60)]
    tokens = TokenBatch.of(load(tokenizer).encode_batch(documents))
    for name in ("distilbert", "linear"):
        scorer = store.parse(str(output / name))
        assert scorer.kind == name
        assert scorer.digest == outcome["digests"].get(name, student["digest"])
        scores = scorer.score(documents, tokens)
        assert np.corrcoef(scores, np.arange(60) % 3)[0, 1] > 0.7


def test_silver_labels_without_a_student(shard: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    labels = ["--silver", "--quantiles", "--levels", "lower,upper"]
    assert run(shard, output, "--epochs", "1", labels=labels) == 0
    outcome = report(output)
    assert str(outcome["source"]).startswith("silver: readability grade cut at")
    assert outcome["student"] is None
    assert not (output / "linear").exists()
    assert store.parse(str(output / "distilbert")).unit == "level"


def test_the_same_arguments_give_the_same_scorers(shard: Path, tmp_path: Path) -> None:
    tokenizer = str(shard.parent / "tokenizer.json")
    outcomes = []
    for name in ("one", "other"):
        arguments = ("--epochs", "1", "--documents", "150", "--lm-tokenizer", tokenizer)
        assert run(shard, tmp_path / name, *arguments) == 0
        outcomes.append(report(tmp_path / name))
    assert outcomes[0] == outcomes[1]


def test_a_pretrained_model_is_trained_on(shard: Path, tmp_path: Path) -> None:
    assert run(shard, tmp_path / "first", "--epochs", "12") == 0
    model = str(tmp_path / "first" / "distilbert")
    arguments = [
        str(shard), "--label-field", "level", "--levels", ",".join(LEVELS), "--init", model,
        "--max-length", "32", "--epochs", "1", "--learning-rate", "1e-4", "--quiet",
        "--output", str(tmp_path / "second"),
    ]  # fmt: skip
    assert main(arguments) == 0
    evaluation = report(tmp_path / "second")["evaluation"]
    assert isinstance(evaluation, dict)
    assert evaluation["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("more", "labels", "message"),
    [
        ([], ["--label-field", "level", "--levels", "easy,midle,hard"], "did you mean midle"),
        ([], ["--label-field", "lvl"], "none of 300 rows has a text in 'text' and a label"),
        (["--documents", "12"], [], "documents to train on"),
        (["--held-out", "1.5"], [], "a share between 0 and 1"),
        (["--epochs", "0"], [], "start at 1"),
        ([], ["--label-field", "lvl"], "check the fields with --text-key and --label-field"),
        (["--lm-tokenizer", "/no/such"], [], "/no/such"),
        ([], ["--silver", "--levels", "a,b"], "2 levels are cut by 1 rising grades"),
        ([], ["--silver", "--cuts", "16,12"], "rising grades"),
        ([], ["--silver", "--cuts", "90,99"], "level undergraduate has 0"),
        ([], ["--silver", "--levels", "a,a"], "each once"),
    ],
)
def test_mistakes_are_told_before_training(
    shard: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    labels: list[str],
    message: str,
) -> None:
    assert run(shard, tmp_path / "out", *more, labels=labels) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--from-scratch", "--hidden-size", "33"], "--hidden-size a multiple of 32"),
        (["--from-scratch", "--layers", "0"], "--layers 1 or more"),
        (["--init", "/no/such"], "/no/such: no such folder"),
        (["--init", "{}"], "no config.json"),
    ],
)
def test_a_model_that_cannot_be_made_is_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    arguments = [each.format(tmp_path) for each in more]
    missing = str(tmp_path / "missing.jsonl")  # would be told of first, were it looked for
    assert main([missing, "--output", str(tmp_path / "out"), "--silver", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_classifier_that_learned_nothing_is_warned_of(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shard, tmp_path / "out", "--epochs", "1", "--learning-rate", "1e-9") == 0
    assert "warning: the classifier learned nothing that shows" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]) == 1


def test_what_is_there_is_not_overwritten_unasked(
    shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("x")
    assert run(shard, tmp_path) == 2
    assert "not empty" in capsys.readouterr().err
    assert run(shard, tmp_path, "--overwrite", "--epochs", "1") == 0
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert "exit codes:" in shown

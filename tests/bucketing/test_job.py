from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

from megagrow.bucketing import output
from megagrow.bucketing.job import DamagedInputError, bucket
from megagrow.bucketing.progress import Progress
from megagrow.bucketing.settings import Settings
from megagrow.bucketing.writing import part, sidecar
from megagrow.config.schema import DataConfig
from megagrow.data.buckets import open_buckets
from megagrow.errors import DataError
from megagrow.tokenization.tokenizer import load, train_bpe
from tests.bucketing import inputs


def make(settings: Settings, **changes: Any) -> dict[str, Any]:
    return bucket(replace(settings, **changes), Progress(quiet=True))


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file of a folder, but for the lock, which names a process."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def documents(folder: Path, prefix: str) -> list[list[int]]:
    """As megatron-core reads them."""
    dataset = IndexedDataset(str(folder / prefix))
    return [dataset[number].tolist() for number in range(len(dataset))]


@pytest.fixture
def rows(tmp_path: Path) -> list[list[dict[str, Any]]]:
    return inputs.write_shards(tmp_path / "in")


@pytest.fixture
def settings(tmp_path: Path, tokenizer_file: Path, rows: list[list[dict[str, Any]]]) -> Settings:
    return Settings(
        inputs=(str(tmp_path / "in"),), output=tmp_path / "out", tokenizer=tokenizer_file
    )


def test_every_document_is_in_one_bucket(
    settings: Settings, rows: list[list[dict[str, Any]]]
) -> None:
    manifest = make(settings)
    tokenizer = load(settings.tokenizer)
    found: Counter[tuple[int, int]] = Counter()
    highest = -np.inf
    for name in settings.levels:
        records = sidecar.load(settings.output / name)
        written = documents(settings.output, name)
        assert len(written) == len(records) == manifest["buckets"][name]["documents"]
        assert sum(map(len, written)) == manifest["buckets"][name]["tokens"]
        for ids, record in zip(written, records.tolist(), strict=True):
            source, row, _ = record
            text = rows[source][row]["text"]
            assert ids == [*tokenizer.encode_batch([text])[0], tokenizer.eod]
            found[source, row] += 1
        # Easier buckets have lower scores, and each is in the order of the input.
        assert records["score"].min() > highest
        highest = records["score"].max()
        order = list(zip(records["input"].tolist(), records["row"].tolist(), strict=True))
        assert order == sorted(order)
    assert found == Counter(
        (source, row) for source, of in enumerate(rows) for row in range(len(of))
    )
    tokens = [entry["tokens"] for entry in manifest["buckets"].values()]
    assert max(tokens) < 1.1 * min(tokens)


def test_one_level_is_byte_for_byte_what_megatron_writes(
    settings: Settings, rows: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    make(settings, levels=("all",))
    tokenizer = load(settings.tokenizer)
    builder = IndexedDatasetBuilder(
        str(tmp_path / "theirs.bin"), dtype=DType.optimal_dtype(tokenizer.vocab_size)
    )
    for each in rows:
        for ids in tokenizer.encode_batch([row["text"] for row in each]):
            builder.add_document(torch.tensor([*ids, tokenizer.eod]), [len(ids) + 1])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for suffix in (".bin", ".idx"):
        ours = (settings.output / f"all{suffix}").read_bytes()
        assert ours == (tmp_path / f"theirs{suffix}").read_bytes()


@pytest.mark.parametrize(
    "changes", [{"workers": 2}, {"engine": "reference"}], ids=["workers", "engine"]
)
def test_workers_and_engines_change_no_token(settings: Settings, changes: dict[str, Any]) -> None:
    make(settings)
    make(settings, output=settings.output.with_name("other"), **changes)
    ours, theirs = contents(settings.output), contents(settings.output.with_name("other"))
    if "engine" in changes:  # they say which engine it was
        for each in (ours, theirs):
            for name in ("manifest.json", "levels.json"):
                del each[name]
    assert ours == theirs


def test_the_size_of_the_chunks_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(settings)
    monkeypatch.setattr(part, "read", partial(part.read, chunk_bytes=2000))
    make(settings, output=settings.output.with_name("other"))
    assert contents(settings.output) == contents(settings.output.with_name("other"))


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zstd", ".parquet"])
def test_every_format_gives_the_same_buckets(
    settings: Settings, tmp_path: Path, suffix: str
) -> None:
    make(settings)
    inputs.write_shards(tmp_path / "other_in", suffix=suffix)
    frozen = settings.output / "levels.json"
    make(settings, inputs=(str(tmp_path / "other_in"),), output=tmp_path / "b", frozen=frozen)
    for name in settings.levels:
        for end in (".bin", ".idx", ".documents.npy"):
            theirs = (tmp_path / "b" / f"{name}{end}").read_bytes()
            assert (settings.output / f"{name}{end}").read_bytes() == theirs


def test_rejects_are_counted_and_add_up(settings: Settings, tmp_path: Path) -> None:
    lines = [b'{"text": null}', b"", b"nonsense", b'{"text": "\\ud800"}', b'{"text": "the dog"}']
    inputs.write(tmp_path / "in" / "bad.jsonl", b"\n".join(lines))
    inputs.write(tmp_path / "in" / "empty.jsonl", b"")
    inputs.write(tmp_path / "in" / "none.jsonl", b"{}\n")
    manifest = make(settings)
    assert manifest["rejects"] == {
        "blank line": 1, "lone surrogate": 1, "no text field": 1, "not JSON": 1, "text is null": 1,
    }  # fmt: skip
    assert manifest["rows"] == 40 + 50 + 60 + 5 + 1
    assert manifest["documents"] == 40 + 50 + 60 + 1
    assert manifest["inputs"]["without_documents"] == 1
    lines_of_inputs = (settings.output / "inputs.jsonl").read_bytes().splitlines()
    found = [orjson.loads(line) for line in lines_of_inputs]
    assert [each["input"] for each in found] == list(range(6))
    for each in found:
        kept = sum(level["documents"] for level in each["levels"].values())
        assert each["rows"] == kept + sum(each["rejects"].values())
    digest = hashlib.sha256((settings.output / "inputs.jsonl").read_bytes()).hexdigest()
    assert manifest["inputs"]["sha256"] == digest


def test_text_cannot_forge_a_boundary(settings: Settings, tmp_path: Path) -> None:
    inputs.write(tmp_path / "in" / "forged.jsonl", inputs.jsonl([{"text": "a<|endoftext|>b"}] * 3))
    make(settings)
    tokenizer = load(settings.tokenizer)
    written = [ids for name in settings.levels for ids in documents(settings.output, name)]
    assert all(ids.count(tokenizer.eod) == 1 and ids[-1] == tokenizer.eod for ids in written)
    assert sum(tokenizer.decode(ids[:-1]) == "a<|endoftext|>b" for ids in written) == 3


def test_training_reads_the_buckets(settings: Settings) -> None:
    manifest = make(settings)
    data = DataConfig(
        path=str(settings.output), buckets={name: (name,) for name in settings.levels}
    )
    opened = open_buckets(data, 16, manifest["vocab_size"])
    assert [each.tokens for each in opened.values()] == [
        each["tokens"] for each in manifest["buckets"].values()
    ]


def test_a_large_bucket_is_several_files(settings: Settings) -> None:
    whole = make(settings, output=settings.output.with_name("whole"))
    manifest = make(settings, tokens_per_file=1)
    prefixes = [file["prefix"] for file in manifest["buckets"]["hard"]["files"]]
    assert prefixes == ["hard-00000", "hard-00001", "hard-00002"]
    joined = [ids for prefix in prefixes for ids in documents(settings.output, prefix)]
    assert joined == documents(settings.output.with_name("whole"), "hard")
    data = DataConfig(path=str(settings.output), buckets={"hard": ("hard",)})
    opened = open_buckets(data, 16, manifest["vocab_size"])["hard"]
    assert opened.tokens == whole["buckets"]["hard"]["tokens"]


def test_given_and_frozen_thresholds(settings: Settings) -> None:
    first = make(settings, levels=("a", "b"), thresholds=(6.0,))
    assert first["levels"]["thresholds"] == [6.0]
    frozen = settings.output / "levels.json"
    again = make(
        settings,
        inputs=(f"{settings.inputs[0]}/shard_00000001*",),
        output=settings.output.with_name("again"),
        frozen=frozen,
        sample_documents=5,
    )
    assert again["levels"]["digest"] == first["levels"]["digest"]
    assert again["scorer"]["digest"] == first["scorer"]["digest"]
    for name in ("a", "b"):
        mine = sidecar.load(settings.output.with_name("again") / name)
        theirs = sidecar.load(settings.output / name)
        theirs = theirs[theirs["input"] == 1]
        assert mine[["row", "score"]].tolist() == theirs[["row", "score"]].tolist()


def test_shares_are_of_tokens(settings: Settings) -> None:
    manifest = make(settings, levels=("a", "b"), shares=(0.8, 0.2))
    tokens = [each["tokens"] for each in manifest["buckets"].values()]
    assert tokens[0] / sum(tokens) == pytest.approx(0.8, abs=0.03)


def test_counts_of_a_reference(settings: Settings, tmp_path: Path) -> None:
    inputs.write(tmp_path / "ref.jsonl", inputs.jsonl(inputs.records(77, 20)))
    plain = make(settings, output=tmp_path / "plain")
    manifest = make(settings, reference=(str(tmp_path / "ref.jsonl"),))
    assert manifest["scorer"]["digest"] != plain["scorer"]["digest"]


def test_readability(settings: Settings) -> None:
    assert make(settings, scorer="readability")["scorer"]["kind"] == "readability"


def test_done_work_is_not_done_again(settings: Settings) -> None:
    first = make(settings)
    before = {path: path.stat().st_mtime_ns for path in settings.output.iterdir()}
    assert make(settings) == first
    after = {path: path.stat().st_mtime_ns for path in settings.output.iterdir()}
    before.pop(settings.output / ".lock")
    after.pop(settings.output / ".lock")
    assert before == after


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"levels": ("x", "y")}, "levels"),
        ({"seed": 2}, "seed"),
        ({"text_key": "url"}, "text_key"),
        ({"tokenizer": True}, "tokenizer"),
    ],
)
def test_a_folder_of_other_arguments_is_refused(
    settings: Settings, tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    if key == "tokenizer":
        train_bpe(["other text"], 300, tmp_path / "other.json")
        changes = {"tokenizer": tmp_path / "other.json"}
    make(settings)
    before = contents(settings.output)
    with pytest.raises(DataError, match=rf"holds the result of other arguments \({key}: "):
        make(settings, **changes)
    assert contents(settings.output) == before
    make(settings, **changes, overwrite=True)
    make(settings, output=settings.output.with_name("fresh"), **changes)
    assert contents(settings.output) == contents(settings.output.with_name("fresh"))


def test_changed_inputs_are_noticed(settings: Settings, tmp_path: Path) -> None:
    make(settings)
    inputs.write(tmp_path / "in" / "new.jsonl", b'{"text": "new"}\n')
    with pytest.raises(DataError, match=r"other arguments \(inputs: "):
        make(settings)


@pytest.mark.parametrize("victim", [0, 1])
def test_an_input_that_changes_meanwhile_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    """The largest is read first: it changes itself, or another one that is read later."""
    path = tmp_path / "in" / f"shard_{2 - victim:08d}_processed.jsonl.zst"
    read = part.read

    def read_then_change(*arguments: Any, **named: Any) -> Iterator[Any]:
        yield from read(*arguments, **named)
        inputs.write(path, b'{"text": "other"}\n')

    with monkeypatch.context() as patch:
        patch.setattr(part, "read", read_then_change)
        with pytest.raises(DamagedInputError, match=rf"{path.name}: changed since the job began"):
            make(settings)
    assert not (settings.output / "manifest.json").exists()


def test_datasets_of_others_are_not_written_over(settings: Settings) -> None:
    settings.output.mkdir()
    (settings.output / "easy.bin").write_bytes(b"tokens")
    with pytest.raises(DataError, match=r"holds easy\.bin, which no job of this tool made"):
        make(settings)
    assert (settings.output / "easy.bin").read_bytes() == b"tokens"


def test_damaged_files_stop_the_job_after_the_others(settings: Settings, tmp_path: Path) -> None:
    victim = tmp_path / "in" / "shard_00000001_processed.jsonl.zst"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-20])
    with pytest.raises(DamagedInputError, match=r"1 of 3 input files are damaged:\n.*truncated"):
        make(settings)
    assert not (settings.output / "manifest.json").exists()
    assert len(list((settings.output / ".work" / "parts").iterdir())) == 2
    manifest = make(settings, skip_damaged=True)
    assert (manifest["inputs"]["files"], manifest["inputs"]["damaged"]) == (3, 1)
    assert manifest["rows"] == 40 + 60
    damaged = [
        json.loads(line)["location"]
        for line in (settings.output / "inputs.jsonl").read_text().splitlines()
        if "damaged" in json.loads(line)
    ]
    assert damaged == [str(victim)]


def test_a_mended_file_joins_what_is_frozen(settings: Settings, tmp_path: Path) -> None:
    victim = tmp_path / "in" / "shard_00000001_processed.jsonl.zst"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-20])
    with pytest.raises(DamagedInputError):
        make(settings)
    frozen = (settings.output / "levels.json").read_bytes()
    with pytest.raises(DataError, match=r"unfinished work of other arguments \(seed: 1 there, 2"):
        make(settings, seed=2)
    victim.write_bytes(whole)
    manifest = make(settings)
    assert manifest["rows"] == 40 + 50 + 60
    assert (settings.output / "levels.json").read_bytes() == frozen


def test_frozen_thresholds_are_never_those_of_other_inputs(
    settings: Settings, tmp_path: Path
) -> None:
    """A job that was stopped after its fit does not lend its thresholds to other files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("megagrow.bucketing.job.make_parts", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(settings)
    inputs.write(tmp_path / "in" / "new.jsonl", b'{"text": "new"}\n')
    with pytest.raises(DataError, match=r"unfinished work on other inputs \(.*new\.jsonl is new"):
        make(settings)
    (tmp_path / "in" / "new.jsonl").unlink()
    gone = tmp_path / "in" / "shard_00000000_processed.jsonl.zst"
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(DataError, match=r"other inputs \(some of them are gone"):
        make(settings)
    gone.write_bytes(content)
    make(settings)


@pytest.mark.parametrize(
    "wrong",
    [{"text_key": "content"}, {"scorer": "linear:nowhere"}, {"scorer": "readabilty"}],
)
def test_a_typo_does_not_lock_the_folder(settings: Settings, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        make(settings, **wrong)
    make(settings)


@pytest.mark.parametrize("left", ["marked", "without a manifest", "damaged"])
def test_a_kill_while_an_old_result_is_dropped(settings: Settings, left: str) -> None:
    make(settings, output=settings.output.with_name("fresh"), seed=2)
    make(settings)
    folder = output.Output(folder=settings.output)
    if left == "damaged":
        folder.manifest.write_text("{")
    else:
        folder.work.mkdir()
        folder.dropping.touch()
        folder.manifest.unlink()
        (settings.output / "easy.idx").unlink()
    # The mark alone is enough: what was begun is finished, whatever is asked for now.
    make(settings, seed=2, overwrite=left == "damaged")
    assert contents(settings.output) == contents(settings.output.with_name("fresh"))


@pytest.mark.parametrize("name", ["easy.bin", "hard.idx"])
def test_a_result_that_is_not_whole_is_no_result(settings: Settings, name: str) -> None:
    make(settings)
    before = contents(settings.output)
    (settings.output / name).unlink()
    with pytest.raises(DataError, match=rf"not what its manifest says: {name[:4]}"):
        make(settings)
    make(settings, overwrite=True)
    assert contents(settings.output) == before


def test_another_scorer_of_the_same_name_is_noticed(settings: Settings, tmp_path: Path) -> None:
    for seed in (1, 2):
        make(settings, output=tmp_path / f"seed{seed}", seed=seed, sample_documents=20)
    folder = tmp_path / "seed1" / "scorer"
    make(settings, scorer=f"surprisal:{folder}")
    for file in (tmp_path / "seed2" / "scorer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"other arguments \(scorer: "):
        make(settings, scorer=f"surprisal:{folder}")


def test_paths_and_folders_within_do_not_matter(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(settings)
    expected = contents(settings.output)
    (tmp_path / "deep").mkdir()
    inputs.write(tmp_path / "in" / ".cache" / "hidden.jsonl", b'{"text": "hidden"}\n')
    monkeypatch.chdir(tmp_path / "deep")
    make(settings, inputs=("../deep/../in",), output=Path("../other"))
    assert contents(tmp_path / "other") == expected
    # The output may be in the folder that is read.
    for _ in range(2):
        make(settings, output=tmp_path / "in" / "out")
    assert contents(tmp_path / "in" / "out") == expected


def test_a_damaged_reference_is_refused(settings: Settings, tmp_path: Path) -> None:
    path = inputs.write(tmp_path / "ref.jsonl.zst", inputs.jsonl(inputs.records(77, 50)))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"the reference cannot be counted: .*truncated"):
        make(settings, reference=(str(path),))


def test_no_file_of_an_earlier_merge_stays(settings: Settings) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("megagrow.bucketing.job.record_inputs", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(settings)
    for name in ("hard-00000.bin", "hard-00000.idx", "hard-00000.documents.npy"):
        (settings.output / name).write_bytes(b"of a merge of other parts")
    make(settings)
    assert not list(settings.output.glob("hard-0*"))


def test_parts_that_are_not_whole_are_made_again(settings: Settings) -> None:
    whole = settings.output.with_name("whole")
    make(settings, output=whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("megagrow.bucketing.job.merge_parts", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(settings)
    parts = sorted((settings.output / ".work" / "parts").iterdir())
    (parts[0] / "0.bin").write_bytes(b"")
    (parts[1] / "part.json").unlink()
    (parts[2] / "documents.npy").write_bytes(b"no array")
    make(settings)
    assert contents(settings.output) == contents(whole)


def _interrupt(*arguments: Any, **named: Any) -> None:
    raise KeyboardInterrupt


def test_an_empty_bucket_is_refused(settings: Settings) -> None:
    with pytest.raises(DataError, match="level 'easy' gets no document"):
        make(settings, thresholds=(1.0, 1000.0))


def test_no_text_at_all_is_refused(settings: Settings) -> None:
    with pytest.raises(DataError, match="no input file holds a text: is --text-key right"):
        make(settings, text_key="content")


def test_one_file_twice_is_refused(settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "in" / "copy.jsonl"
    copy.write_bytes((tmp_path / "in" / "shard_00000000_processed.jsonl.zst").read_bytes())
    with pytest.raises(DataError, match="look the same"):
        make(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": (0.5, 0.5)}, "3 levels .* but 2 shares"),
        ({"workers": 0}, "--workers must be 1 or more"),
        ({"thresholds": (2.0, 1.0)}, "thresholds must rise"),
        ({"thresholds": (2.0,)}, "3 levels need 2 thresholds"),
        ({"scorer": "suprisal"}, "surprisal"),
        ({"tokenizer": Path("/nowhere")}, "/nowhere"),
        ({"end_of_document": "<eos>"}, "<eos>"),
        ({"seed": -1}, "--seed must be"),
        ({"thresholds": (1.0, float("nan"))}, "no finite number"),
        ({"reference": ("x",), "scorer": "readability"}, "only surprisal does"),
        ({"frozen": Path("/nowhere/levels.json")}, "cannot be used"),
    ],
)
def test_bad_settings_are_refused(
    settings: Settings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make(settings, **changes)
    assert not (settings.output / "manifest.json").exists()


def test_an_output_that_is_a_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("work of years")
    with pytest.raises(DataError, match="is a file"):
        make(settings)
    assert (tmp_path / "out").read_text() == "work of years"


def test_the_manifest_of_another_tool_is_left_alone(settings: Settings) -> None:
    settings.output.mkdir()
    (settings.output / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="another tool's"):
        make(settings)
    assert (settings.output / "manifest.json").read_text() == "{}"

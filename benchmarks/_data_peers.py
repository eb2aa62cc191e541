"""What data preparation is compared with; each function runs in a process of its own.

Megatron-LM's tools are not on PyPI. `preprocess` and `preprocess_fast` stand for its
`tools/preprocess_data.py` and `tools/preprocess_data_fast.py` (main, 2026): written here, with the
same library calls in the same order. Tokenizer and dataset builder are megatron-core's own.
Clocks start when everything is imported.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from _data_process import cpu_seconds

Facts = dict[str, Any]


def preprocess(argument: Facts) -> Facts:
    """Plain JSON Lines; documents one at a time through `transformers` in one worker, one writer.

    Args:
        argument: `input`, `tokenizer`, `prefix`.

    Returns:
        `seconds` after `startup`, which the tool too leaves out of its rate.
    """
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    from megatron.core.tokenizers.text.libraries.huggingface_tokenizer import (  # noqa: F401
        HuggingFaceTokenizer,
    )

    folder = str(Path(argument["tokenizer"]).parent)
    start = time.perf_counter()
    tokenizer = _megatron_tokenizer(folder)
    builder = IndexedDatasetBuilder(
        f"{argument['prefix']}.bin", dtype=DType.optimal_dtype(tokenizer.vocab_size)
    )
    with (
        Path(argument["input"]).open(encoding="utf-8") as lines,
        multiprocessing.get_context("fork").Pool(1) as pool,
    ):
        encoded = pool.imap(partial(_encode, folder), lines, 32)
        begun, used = time.perf_counter(), cpu_seconds()
        for ids, lengths in encoded:
            builder.add_document(ids, lengths)
        builder.finalize(f"{argument['prefix']}.idx")
        end = time.perf_counter()
        pool.close()
        pool.join()
    return {"seconds": end - begun, "cpu": cpu_seconds() - used, "startup": begun - start}


@cache
def _megatron_tokenizer(folder: str) -> Any:
    from megatron.core.tokenizers.text.libraries.huggingface_tokenizer import HuggingFaceTokenizer

    return HuggingFaceTokenizer(folder, use_fast=True)


def _encode(folder: str, line: str) -> tuple[list[int], list[int]]:
    tokenizer = _megatron_tokenizer(folder)
    text = json.loads(line)["text"]
    ids: list[int] = []
    lengths: list[int] = []
    for sentence in [text]:
        found = tokenizer.text_to_ids(sentence)
        if found:
            ids.extend(found)
            lengths.append(len(found))
    if ids:
        ids.append(tokenizer.eod)
        lengths[-1] += 1
    return ids, lengths


def datatrove(argument: Facts) -> Facts:
    """The package's own reader and `MegatronDocumentTokenizer` under its local executor.

    Args:
        argument: `input`, `tokenizer`, `folder` to write to, `end`: text of the last token.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer
    from tokenizers import Tokenizer  # noqa: F401

    source, folder = Path(argument["input"]), Path(argument["folder"])
    start = time.perf_counter()
    tokenize = MegatronDocumentTokenizer(
        output_folder=str(folder / "tokens"),
        tokenizer_name_or_path=argument["tokenizer"],
        eos_token=argument["end"],
    )
    _ = tokenize.tokenizer  # loads it
    begun, used = time.perf_counter(), cpu_seconds()
    LocalPipelineExecutor(
        pipeline=[JsonlReader(str(source.parent), glob_pattern=source.name), tokenize],
        tasks=1,
        workers=1,
        logging_dir=str(folder / "logs"),
    ).run()
    end = time.perf_counter()
    return {
        "seconds": end - begun,
        "cpu": cpu_seconds() - used,
        "startup": begun - start,
        "prefix": str(folder / "tokens" / "00000_tokens"),
    }


def preprocess_fast(argument: Facts) -> Facts:
    """A whole file at a time through gigatoken into one awkward array, EOD column, one write.

    The tool takes one file. Several are several runs of it here, so the tokenizer is loaded for
    each; interpreter and imports of the runs after the first are not charged.

    Args:
        argument: `inputs`, `tokenizer`, `eod`, `folder` to write to.
    """
    import awkward
    import gigatoken
    import numpy as np
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    from transformers import AutoTokenizer

    folder = str(Path(argument["tokenizer"]).parent)
    start, used = time.perf_counter(), cpu_seconds()
    prefixes = []
    for number, path in enumerate(argument["inputs"]):
        prefix = f"{argument['folder']}/{number}"
        tokenizer = gigatoken.Tokenizer(AutoTokenizer.from_pretrained(folder, use_fast=True))
        found = tokenizer.encode_files(gigatoken.JsonlFileSource([path], "text"))
        dtype = DType.optimal_dtype(tokenizer.vocab_size)
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
        column = awkward.singletons(
            awkward.Array(np.full(len(found), argument["eod"], dtype=np.uint32))
        )
        found = awkward.concatenate([found, column], axis=1)
        # From here IndexedDatasetBuilder.add_documents, which 0.16 does not have.
        flat = np.asarray(awkward.flatten(found), dtype=dtype)
        builder.data_file.write(flat.tobytes(order="C"))
        lengths = np.asarray(awkward.num(found, axis=1))
        offset = len(builder.sequence_lengths)
        builder.sequence_lengths.extend(lengths.tolist())
        # Main was seen to add up token counts here, which readers reject; this costs as much.
        builder.document_indices.extend((offset + np.arange(1, len(lengths) + 1)).tolist())
        builder.finalize(f"{prefix}.idx")
        prefixes.append(prefix)
    return {
        "seconds": time.perf_counter() - start,
        "cpu": cpu_seconds() - used,
        "prefixes": prefixes,
    }


def encode_files(argument: Facts) -> Facts:
    """The bound: gigatoken reads and encodes; nothing is scored, sorted or written.

    Args:
        argument: `inputs`, `tokenizer`, `passes` after the first, cold one.
    """
    import awkward  # noqa: F401
    import gigatoken

    start, used = time.perf_counter(), cpu_seconds()
    tokenizer = gigatoken.Tokenizer(argument["tokenizer"])
    load = (time.perf_counter() - start, cpu_seconds() - used)
    first, *others = _passes(tokenizer, argument["inputs"], 1 + argument["passes"])
    return {
        "cold": load[0] + first[0],
        "cold_cpu": load[1] + first[1],
        "warm": [seconds for seconds, _ in others],
        "warm_cpu": [cpu for _, cpu in others],
    }


def _passes(tokenizer: Any, inputs: list[str], count: int) -> Iterator[tuple[float, float]]:
    from gigatoken import JsonlFileSource

    for _ in range(count):
        start, used = time.perf_counter(), cpu_seconds()
        for path in inputs:
            tokenizer.encode_files(JsonlFileSource([path], "text"))
        yield time.perf_counter() - start, cpu_seconds() - used

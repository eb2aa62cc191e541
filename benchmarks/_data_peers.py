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

Facts = dict[str, Any]


def preprocess(argument: Facts) -> Facts:
    """Plain JSON Lines; documents one at a time through `transformers` in one worker, one writer.

    Args:
        argument: `input`, `tokenizer`, `prefix`.

    Returns:
        `seconds` after `startup`, documents and tokens.
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
    documents = tokens = 0
    with (
        open(argument["input"], encoding="utf-8") as lines,
        multiprocessing.get_context("fork").Pool(1) as pool,
    ):
        encoded = pool.imap(partial(_encode, folder), lines, 32)
        begun = time.perf_counter()
        for ids, lengths in encoded:
            builder.add_document(ids, lengths)
            documents += 1
            tokens += len(ids)
        builder.finalize(f"{argument['prefix']}.idx")
        end = time.perf_counter()
    return {
        "seconds": end - begun,
        "startup": begun - start,
        "documents": documents,
        "tokens": tokens,
    }


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
    """datatrove's own reader and `MegatronDocumentTokenizer` under its local executor.

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
    vocabulary = tokenize.tokenizer.get_vocab_size()
    begun = time.perf_counter()
    LocalPipelineExecutor(
        pipeline=[JsonlReader(str(source.parent), glob_pattern=source.name), tokenize],
        tasks=1,
        workers=1,
        logging_dir=str(folder / "logs"),
    ).run()
    end = time.perf_counter()
    return {
        "seconds": end - begun,
        "startup": begun - start,
        "vocabulary": vocabulary,
        "prefix": str(folder / "tokens" / "00000_tokens"),
    }


def preprocess_fast(argument: Facts) -> Facts:
    """gigatoken, a whole file at a time into one awkward array, then EOD column and one write.

    Args:
        argument: `inputs`, `tokenizer`, `eod`, `folder` to write to.
    """
    import awkward
    import gigatoken
    import numpy as np
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    start = time.perf_counter()
    tokenizer = gigatoken.Tokenizer(argument["tokenizer"])
    dtype = DType.optimal_dtype(tokenizer.vocab_size)
    begun = time.perf_counter()
    prefixes = []
    tokens = 0
    for number, path in enumerate(argument["inputs"]):
        prefix = f"{argument['folder']}/{number}"
        found = tokenizer.encode_files(gigatoken.JsonlFileSource([path], "text"))
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
        column = awkward.singletons(
            awkward.Array(np.full(len(found), argument["eod"], dtype=np.uint32))
        )
        found = awkward.concatenate([found, column], axis=1)
        # IndexedDatasetBuilder.add_documents, which 0.16 has not.
        flat = np.asarray(awkward.flatten(found), dtype=dtype)
        builder.data_file.write(flat.tobytes(order="C"))
        lengths = np.asarray(awkward.num(found, axis=1))
        offset = len(builder.sequence_lengths)
        builder.sequence_lengths.extend(lengths.tolist())
        # Theirs adds up token counts here (seen in main), which readers reject; this costs as much.
        builder.document_indices.extend((offset + np.arange(1, len(lengths) + 1)).tolist())
        builder.finalize(f"{prefix}.idx")
        tokens += flat.size
        prefixes.append(prefix)
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "startup": begun - start,
        "tokens": tokens,
        "prefixes": prefixes,
    }


def encode_files(argument: Facts) -> Facts:
    """gigatoken reading and encoding alone: nothing scored, sorted or written. The bound.

    Args:
        argument: `inputs`, `tokenizer`, `passes` after the first, cold one.
    """
    import awkward  # noqa: F401
    import gigatoken

    start = time.perf_counter()
    tokenizer = gigatoken.Tokenizer(argument["tokenizer"])
    loaded = time.perf_counter()
    seconds = list(_passes(tokenizer, argument["inputs"], 1 + argument["passes"]))
    return {"load": loaded - start, "cold": seconds[0], "warm": seconds[1:]}


def _passes(tokenizer: Any, inputs: list[str], count: int) -> Iterator[float]:
    from gigatoken import JsonlFileSource

    for _ in range(count):
        start = time.perf_counter()
        for path in inputs:
            tokenizer.encode_files(JsonlFileSource([path], "text"))
        yield time.perf_counter() - start

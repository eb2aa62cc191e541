"""What a finished job leaves to read: `inputs.jsonl`, the manifest, a table."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megagrow.bucketing.fitting.fitted import Fitted
from megagrow.bucketing.output import Output
from megagrow.bucketing.pool import Damaged
from megagrow.bucketing.recipe import Recipe
from megagrow.bucketing.settings import Settings
from megagrow.bucketing.writing.part import Part, documents
from megagrow.data.manifest import FileStats, write_manifest
from megagrow.errors import DataError
from megagrow.runtime.files import write_atomically
from megagrow.shards.shard import Shard
from megagrow.units import format_bytes, format_count


def record_inputs(
    path: Path, shards: Sequence[Shard], parts: Sequence[Part | Damaged], names: Sequence[str]
) -> None:
    """Writes a line for every input file: what it was, and where each of its rows went."""
    lines = []
    for number, (shard, part) in enumerate(zip(shards, parts, strict=True)):
        line: dict[str, Any] = {
            "input": number,
            "location": shard.location,
            "format": shard.format,
            "size": shard.size,
            "fingerprint": shard.fingerprint,
        }
        if isinstance(part, Damaged):
            line["damaged"] = part.error
        else:
            line |= {
                "rows": part.rows,
                "rejects": part.rejects,
                "text_bytes": part.text_bytes,
                "levels": {
                    name: {"documents": of.documents, "tokens": of.tokens, "crc32": of.crc32}
                    for name, of in zip(names, part.levels, strict=True)
                },
            }
        lines.append(json.dumps(line, ensure_ascii=False))
    write_atomically(path, "\n".join(lines) + "\n")


def write_summary(
    output: Output,
    recipe: Recipe,
    found: Fitted,
    parts: Sequence[Part | Damaged],
    files: Mapping[str, Sequence[FileStats]],
    arguments: Mapping[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    """Writes the manifest, after checking that every row is accounted for."""
    whole = [part for part in parts if isinstance(part, Part)]
    rejects: Counter[str] = Counter()
    for part in whole:
        rejects.update(part.rejects)
    rows = sum(part.rows for part in whole)
    kept = sum(file.documents for every in files.values() for file in every)
    if rows != kept + rejects.total() or kept != sum(map(documents, whole)):
        raise DataError(
            f"{rows} rows were read, but {kept} are in buckets and {rejects.total()} rejected: "
            "a defect in this tool; nothing was published"
        )
    unit = found.notes["unit"]
    encoding = recipe.encoding
    notes = {
        "tokenizer": {
            "file": encoding.tokenizer.name,
            "sha256": encoding.tokenizer_hash,
            "end_of_document": encoding.end_of_document,
            "engine": encoding.engine_version,
        },
        "scorer": {
            "folder": output.scorer.name,
            "kind": found.notes["kind"],
            "unit": unit,
            "digest": recipe.levels.scorer_digest,
        },
        "levels": {
            "file": output.levels.name,
            "names": list(recipe.levels.names),
            "thresholds": list(recipe.levels.thresholds),
            "digest": recipe.levels.digest,
            **found.notes,
        },
        "inputs": {
            "file": output.inputs.name,
            "sha256": hashlib.sha256(output.inputs.read_bytes()).hexdigest(),
            "files": len(parts),
            "damaged": len(parts) - len(whole),
            "without_documents": sum(part.rows > 0 and documents(part) == 0 for part in whole),
        },
        "rows": rows,
        "documents": kept,
        "rejects": dict(sorted(rejects.items())),
        "text_bytes": sum(part.text_bytes for part in whole),
        "seed": settings.seed,
        "arguments": dict(arguments),
    }
    return write_manifest(
        output.folder,
        vocab_size=encoding.vocab_size,
        eod=encoding.eod,
        buckets=files,
        notes=notes,
    )


def table(manifest: Mapping[str, Any]) -> str:
    """Plain text: the buckets, the rejects, and what to put into a run's configuration."""
    total = sum(bucket["tokens"] for bucket in manifest["buckets"].values())
    thresholds = [None, *manifest["levels"]["thresholds"]]
    head = ("bucket", "from score", "documents", "tokens", "share", "tokens/doc", "files")
    rows = [head]
    for (name, bucket), threshold in zip(manifest["buckets"].items(), thresholds, strict=True):
        rows.append(
            (
                name,
                "" if threshold is None else f"{threshold:.4g}",
                f"{bucket['documents']:,}",
                format_count(bucket["tokens"]),
                f"{bucket['tokens'] / total:.1%}",
                f"{bucket['tokens'] / bucket['documents']:,.0f}",
                str(len(bucket["files"])),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rejects, inputs = manifest["rejects"], manifest["inputs"]
    lines += [
        "",
        f"{manifest['rows']:,} rows, {format_bytes(manifest['text_bytes'])} of text: "
        f"{manifest['documents']:,} documents, {sum(rejects.values()):,} rejected",
        *(f"  rejected {count:,}: {reason}" for reason, count in rejects.items()),
    ]
    for count, what in (
        (inputs["damaged"], "are damaged and were left out"),
        (inputs["without_documents"], "gave no document at all: are they text shards?"),
    ):
        if count:
            lines.append(f"{count} of {inputs['files']} files {what}; see {inputs['file']}")
    return "\n".join(lines)


def configuration(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The `data` part of a run's YAML, ready to be pasted."""
    names = ", ".join(f"{name}: {name}" for name in manifest["buckets"])
    return f"For a run's configuration:\ndata:\n  path: {folder}\n  buckets: {{{names}}}"

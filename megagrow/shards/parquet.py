"""One column of a parquet shard, some MiB at a time. Needs pyarrow, which `[data]` brings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from megagrow.errors import DataError
from megagrow.shards.shard import DamagedShardError, Shard
from megagrow.shards.storage import open_binary

_BATCH_ROWS = 1024


def columns(shard: Shard, key: str) -> Iterator[tuple[list[Any], int]]:
    """Values of the column `key` in order, and about how many bytes of the file have been read.

    Text that is not UTF-8 comes as bytes.

    Raises:
        DataError: no pyarrow, no such column, or a damaged file.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{shard.location}: parquet needs pyarrow: pip install 'megagrow[data]'"
        ) from None
    with open_binary(shard.location) as stream:
        try:
            with parquet.ParquetFile(stream) as file:
                names = file.schema_arrow.names
                if key not in names:
                    raise DataError(
                        f"{shard.location}: no column {key!r}; it has {', '.join(names)}: name one "
                        "with --text-key"
                    )
                rows = 0
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[key]):
                    rows += batch.num_rows
                    done = shard.size * rows // max(file.metadata.num_rows, 1)
                    yield _values(batch.column(0)), done
        except (pa.ArrowException, OSError) as error:
            raise DamagedShardError(
                f"{shard.location}: damaged ({error}); fetch it again"
            ) from None


def _values(column: Any) -> list[Any]:
    import pyarrow as pa

    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:  # a string column may hold anything; the reader does not look
        return list(column.cast(pa.binary()).to_pylist())

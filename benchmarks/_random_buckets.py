"""Buckets of random tokens: for what does not depend on what is read."""

from __future__ import annotations

from pathlib import Path

BUCKETS = ("easy", "middle", "hard")


def write_buckets(folder: Path, vocabulary: int, tokens: int) -> None:
    """Writes `BUCKETS`, each of about as many tokens as are asked for, in documents of 100 to 900.

    Args:
        folder: where to.
        vocabulary: token ids, of which 0 ends a document.
        tokens: of each bucket.
    """
    import numpy as np

    from megagrow.data.writer import BucketWriter

    random = np.random.default_rng(1)
    for name in BUCKETS:
        with BucketWriter(folder / name, vocab_size=vocabulary, eod=0) as writer:
            documents = tokens // 500 + 40
            lengths = random.integers(100, 900, documents)
            writer.add_documents(random.integers(1, vocabulary, lengths.sum()), lengths)

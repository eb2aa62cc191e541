r"""Sort text shards into difficulty buckets of tokens that Megatron datasets read.

    python tools/bucket_by_difficulty.py 'dclm/*.jsonl.zst' --tokenizer tokenizer.json \
        --levels high-school,undergraduate,graduate --output data/dclm

Killed at any moment, run it again: it goes on, and ends with the same bytes.
"""

from __future__ import annotations

import sys

from megagrow.bucketing.command.bucket import main

if __name__ == "__main__":
    sys.exit(main())

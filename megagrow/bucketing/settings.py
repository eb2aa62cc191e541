"""What a bucketing job is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megagrow.bucketing.levels import check_names, check_shares, check_thresholds
from megagrow.errors import DataError

DEFAULT_LEVELS = ("easy", "middle", "hard")
DEFAULT_TOKENS_PER_FILE = 50_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A bucketing job; see `tools/bucket_by_difficulty.py --help` for what each part means."""

    inputs: tuple[str, ...]
    """Files, folders, globs, URLs and @LISTs of text shards."""

    output: Path
    """Folder for the buckets."""

    tokenizer: Path
    """Tokenizer file or folder."""

    end_of_document: str | None = None
    """Token that ends every document; None: the tokenizer's usual one."""

    pattern: str | None = None
    """Name of the splitting pattern, for tiktoken files that do not say it."""

    engine: str = "auto"
    """`auto`, `gigatoken` or `reference`."""

    text_key: str = "text"
    """Field or column that holds the text."""

    levels: tuple[str, ...] = DEFAULT_LEVELS
    """Names of the levels, easiest first."""

    shares: tuple[float, ...] | None = None
    """Share of all tokens that each level is to get; None: equal ones."""

    thresholds: tuple[float, ...] | None = None
    """Scores between the levels; None: fitted to `shares`."""

    frozen: Path | None = None
    """A `levels.json` of an earlier job, whose scorer and thresholds are applied."""

    scorer: str = "surprisal"
    """`surprisal`, `readability`, or where a trained one is."""

    reference: tuple[str, ...] = ()
    """Files to count tokens in for `surprisal`; none: the inputs' sample."""

    sample_documents: int = 20_000
    """Documents to fit thresholds and counts on."""

    sample_shards: int = 64
    """Most shards to take them from."""

    seed: int = 1
    """Seed of the sample."""

    workers: int = 1
    """Processes to work in."""

    tokens_per_file: int = DEFAULT_TOKENS_PER_FILE
    """A bucket of more tokens is written as several files."""

    skip_damaged: bool = False
    """Finish without damaged files, and list them, instead of stopping."""

    overwrite: bool = False
    """Drop what another job left in the output folder."""

    def __post_init__(self) -> None:
        """Refuses what cannot be done."""
        if self.frozen is None:
            check_names(self.levels)
            if self.thresholds is not None:
                check_thresholds(self.levels, self.thresholds)
        if self.seed < 0:
            raise DataError("--seed must be 0 or more")
        if self.reference and (self.scorer != "surprisal" or self.frozen is not None):
            raise DataError("--reference is for counting tokens, which only surprisal does")
        if self.shares is not None:
            check_shares(self.shares)
            if len(self.shares) != len(self.levels):
                raise DataError(
                    f"{len(self.levels)} levels ({', '.join(self.levels)}), but "
                    f"{len(self.shares)} shares: give one for each level"
                )
            if self.thresholds is not None or self.frozen is not None:
                raise DataError("give shares or thresholds: each says where levels end")
        for name in ("sample_documents", "sample_shards", "workers", "tokens_per_file"):
            if getattr(self, name) < 1:
                raise DataError(f"--{name.replace('_', '-')} must be 1 or more")

    @property
    def wanted_shares(self) -> tuple[float, ...]:
        """Share of all tokens that each level is to get."""
        return self.shares or tuple(1 / len(self.levels) for _ in self.levels)

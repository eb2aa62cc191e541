"""What classifier to train, and on what."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from megagrow.difficulty.classifier import Settings
from megagrow.difficulty.labels import SCHOOL_LEVELS


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """What to train, on what; see `tools/train_difficulty_classifier.py --help`."""

    inputs: tuple[str, ...]
    """Files, folders, globs or lists."""
    output: Path
    """Folder to write."""
    levels: tuple[str, ...] = SCHOOL_LEVELS
    """Names, easiest first."""
    text_key: str = "text"
    """Field or column of the text."""
    label_key: str | None = None
    """Field or column of the label; None for silver labels."""
    cuts: tuple[float, ...] | None = None
    """Grades between silver levels; None for equal numbers of documents."""
    init: str | None = None
    """Folder or hub id of a pretrained model; None for a small one from scratch."""
    layers: int = 2
    """Layers, from scratch."""
    hidden_size: int = 128
    """Width, from scratch."""
    vocab_size: int = 8192
    """WordPiece ids, from scratch."""
    settings: Settings = field(default_factory=Settings)
    """How to train."""
    documents: int = 20_000
    """Documents to take, at most."""
    held_out: float = 0.1
    """Share of them that is not trained on."""
    lm_tokenizer: Path | None = None
    """Tokenizer of the language model, to distil for; None for no student."""
    max_tokens: int | None = None
    """Ids of a document that the student reads; None for as many as the classifier's own."""
    export_onnx: bool = False
    """Export int8, too."""
    overwrite: bool = False
    """Replace what is in `output`."""

    @property
    def student_tokens(self) -> int:
        """Ids of a document that the student reads."""
        return self.settings.max_length if self.max_tokens is None else self.max_tokens

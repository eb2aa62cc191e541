"""What came of training a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

from megagrow.difficulty.distil import Agreement
from megagrow.difficulty.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8:
    """The int8 export against the model it was made from, on held-out documents."""

    accuracy: float
    """Share of documents whose most probable level is their label."""
    spearman: float
    """Rank correlation of the expected levels."""
    mean_difference: float
    """Mean |difference| of the expected levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """The linear student on held-out documents."""

    digest: str
    """sha256 of the scorer."""
    penalty: float
    """Ridge penalty."""
    accuracy: float
    """Share of documents in their labelled level, the scores cut so that levels are as large."""
    agreement: Agreement
    """With the classifier."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOutcome:
    """What came of a `TrainingPlan`."""

    levels: tuple[str, ...]
    """Names, easiest first."""
    source: str
    """Where the labels are from, in words."""
    rows: int
    """Rows read."""
    left_out: dict[str, int]
    """Rows left out, by reason."""
    shares: dict[str, float]
    """Share of the documents in each level."""
    trained_on: int
    """Documents in training."""
    parameters: int
    """Parameters of the classifier."""
    final_loss: float
    """Mean training loss of the last tenth of the steps."""
    evaluation: Evaluation
    """The classifier on held-out documents."""
    student: Student | None
    """The linear student; None without one."""
    readability: Agreement
    """The readability scorer against the classifier, to compare: it needs no training."""
    int8: Int8 | None
    """The int8 export; None without one."""
    digests: dict[str, str]
    """sha256 of each scorer, by folder."""

    @property
    def warnings(self) -> list[str]:
        """What makes the classifier, and so its student, of no use; empty where nothing does."""
        found = self.evaluation
        error = math.sqrt(found.accuracy * (1 - found.accuracy) / found.documents)
        if found.accuracy - found.majority > error:
            return []
        return [
            f"the classifier learned nothing that shows: it is right on {found.accuracy:.1%} of "
            f"{found.documents} held-out documents, where the commonest level alone is right on "
            f"{found.majority:.1%} (standard error {error:.1%}); do not bucket with it. Train "
            "longer, on more documents, from --init, or check the labels"
        ]

"""What training a classifier came to: report.json, report.png, and a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.table import Table

from megagrow.difficulty.evaluation import Evaluation
from megagrow.difficulty.training_outcome import TrainingOutcome
from megagrow.difficulty.training_plan import TrainingPlan
from megagrow.report.style import INK, RUN_COLOURS, STYLE
from megagrow.runtime.files import write_atomically


def write(plan: TrainingPlan, outcome: TrainingOutcome) -> None:
    """Writes `report.png`, then `report.json`, into the output folder."""
    with mpl.rc_context(STYLE):
        drawn = _figure(outcome)
        buffer = BytesIO()
        FigureCanvasAgg(drawn).print_png(buffer)
    write_atomically(plan.output / "report.png", buffer.getvalue())
    document = {
        "plan": asdict(plan), "outcome": asdict(outcome), "warnings": outcome.warnings,
    }  # fmt: skip
    text = json.dumps(document, indent=2, ensure_ascii=False, default=_plain) + "\n"
    write_atomically(plan.output / "report.json", text)


def table(outcome: TrainingOutcome) -> Table:
    """The figures that matter, for a terminal."""
    result = outcome.evaluation
    shown = Table(title=f"On {result.documents} held-out documents; labels: {outcome.source}")
    shown.add_column("")
    shown.add_column("value", justify="right")
    shown.add_column("")
    for name, value, words in (
        ("accuracy", f"{result.accuracy:.1%}", f"{result.majority:.1%} by the commonest level"),
        ("macro F1", f"{result.macro_f1:.3f}", ""),
        ("calibration error", f"{result.calibration_error:.3f}", "0 is perfect"),
        *_student_rows(outcome),
        ("readability: Spearman", f"{outcome.readability.spearman:.3f}", "with the classifier"),
    ):
        shown.add_row(name, value, words)
    if outcome.int8 is not None:
        words = f"Spearman {outcome.int8.spearman:.4f} with float32"
        shown.add_row("int8: accuracy", f"{outcome.int8.accuracy:.1%}", words)
    return shown


def confusion_table(title: str, levels: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    """A confusion matrix, for a terminal."""
    shown = Table(title=title)
    shown.add_column("")
    for name in levels:
        shown.add_column(name, justify="right")
    for name, row in zip(levels, counts, strict=True):
        shown.add_row(name, *(f"{count:,}" for count in row))
    return shown


def _student_rows(outcome: TrainingOutcome) -> list[tuple[str, str, str]]:
    student = outcome.student
    if student is None:
        return []
    agreement = student.agreement
    chance = f"{agreement.by_chance:.1%} by chance"
    return [
        ("linear: Spearman", f"{agreement.spearman:.3f}", "with the classifier"),
        ("linear: level agreement", f"{agreement.level_agreement:.1%}", chance),
        ("linear: accuracy", f"{student.accuracy:.1%}", "against the labels"),
    ]


def _figure(outcome: TrainingOutcome) -> Figure:
    panels = 2 if outcome.student is None else 3
    drawn = Figure(figsize=(4.6 * panels, 4.2), layout="constrained")
    axes = drawn.subplots(1, panels)
    result = outcome.evaluation
    _draw_confusion(
        axes[0], outcome.levels, result.confusion, ("label", "classifier"),
        f"Accuracy {result.accuracy:.1%}",
    )  # fmt: skip
    _draw_reliability(axes[1], result)
    if outcome.student is not None:
        agreement = outcome.student.agreement
        _draw_confusion(
            axes[2], outcome.levels, agreement.confusion, ("classifier", "linear student"),
            f"Student agrees on {agreement.level_agreement:.1%}",
        )  # fmt: skip
    return drawn


def _draw_confusion(
    axes: Axes,
    levels: Sequence[str],
    counts: Sequence[Sequence[int]],
    names: tuple[str, str],
    title: str,
) -> None:
    matrix = np.asarray(counts)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    for (row, column), count in np.ndenumerate(matrix):
        axes.text(column, row, f"{count:,}\n{shares[row, column]:.0%}", ha="center", va="center")
    axes.set_xticks(range(len(levels)), levels)
    axes.set_yticks(range(len(levels)), levels, rotation=90, va="center")
    axes.set_ylabel(names[0])
    axes.set_xlabel(names[1])
    axes.set_title(title)
    axes.grid(visible=False)


def _draw_reliability(axes: Axes, result: Evaluation) -> None:
    confidence = [each.confidence for each in result.bins]
    accuracy = [each.accuracy for each in result.bins]
    sizes = [20 + 300 * each.documents / result.documents for each in result.bins]
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="perfect")
    axes.plot(confidence, accuracy, color=RUN_COLOURS[0])
    axes.scatter(confidence, accuracy, sizes, color=RUN_COLOURS[0], label="area: documents")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("confidence of the classifier")
    axes.set_ylabel("share that is right")
    axes.set_title(f"Calibration error {result.calibration_error:.3f}")
    axes.legend(loc="upper left")


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else list(value)  # type: ignore[call-overload]

"""From text shards to a trained classifier, its linear student, and figures on both."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.difficulty import classifier as classifiers
from megagrow.difficulty import distil, evaluation, labels, onnx_int8, store
from megagrow.difficulty.distilbert import DistilBert, open_model, quiet_transformers
from megagrow.difficulty.examples import Sample, check_sizes, level_numbers, sample
from megagrow.difficulty.linear import Linear
from megagrow.difficulty.progress import Progress
from megagrow.difficulty.readability import Readability
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch
from megagrow.tokenization.engine import open_engine
from megagrow.tokenization.tokenizer import Tokenizer
from megagrow.tokenization.tokenizer import load as load_tokenizer

_ENCODED_TOGETHER = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to train, on what; see `tools/train_difficulty_classifier.py --help`."""

    inputs: tuple[str, ...]
    """Files, folders, globs or lists."""
    output: Path
    """Folder to write."""
    levels: tuple[str, ...] = labels.SCHOOL_LEVELS
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
    settings: classifiers.Settings = field(default_factory=classifiers.Settings)
    """How to train."""
    documents: int = 20_000
    """Documents to take, at most."""
    held_out: float = 0.1
    """Share of them that is not trained on."""
    lm_tokenizer: Path | None = None
    """Tokenizer of the language model, to distil for; None for no student."""
    max_tokens: int = 512
    """Ids of a document that the student reads."""
    export_onnx: bool = False
    """Export int8, too."""
    overwrite: bool = False
    """Replace what is in `output`."""


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
class Outcome:
    """What came of a plan."""

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
    evaluation: evaluation.Evaluation
    """The classifier on held-out documents."""
    student: distil.Agreement | None
    """The student against the classifier on held-out documents; None without one."""
    student_accuracy: float | None
    """Share of held-out documents that the student puts in their labelled level."""
    penalty: float | None
    """The student's ridge penalty."""
    readability: distil.Agreement
    """The readability scorer against the classifier, to compare: it needs no training."""
    int8: Int8 | None
    """The int8 export; None without one."""
    digests: dict[str, str]
    """sha256 of each scorer, by folder."""


def train(plan: Plan, progress: Progress) -> Outcome:
    """Runs a plan; `plan.output` then holds `distilbert/` and, with a tokenizer, `linear/`.

    Raises:
        DataError: input that cannot be used, a package that is missing, or an output folder that
            holds something; all before training.
        TrainingError: the loss is not finite.
    """
    _check(plan)
    tokenizer = None if plan.lm_tokenizer is None else load_tokenizer(plan.lm_tokenizer)
    texts, numbers, held, found, source = _labelled(plan, progress)
    check_sizes(numbers, held, plan.levels)
    model = _model(plan, [texts[index] for index in np.flatnonzero(~held)])
    size = sum(each.numel() for each in model.model.parameters())
    progress.say(
        f"training {size / 1e6:.1f} M parameters on {np.sum(~held)} documents, "
        f"{np.sum(held)} held out"
    )
    losses = _train(plan, model, texts, numbers, held, progress)
    folder = plan.output / "distilbert"
    _prepare(plan)
    model.save(folder)
    teacher = open_model(folder, max_length=plan.settings.max_length, device=plan.settings.device)
    store.save(teacher, folder)
    probabilities = _probabilities(teacher, texts, "scoring", progress)
    digests = {"distilbert": teacher.digest}
    student = agreement = student_accuracy = None
    if tokenizer is not None:
        student, scores = _student(plan, tokenizer, texts, probabilities, held)
        agreement = distil.agreement(probabilities[held], scores[held])
        student_accuracy = distil.cut_accuracy(scores[held], numbers[held], len(plan.levels))
        store.save(student.scorer, plan.output / "linear")
        digests["linear"] = student.scorer.digest
    readability = Readability().score(texts, None)
    return Outcome(
        levels=plan.levels,
        source=source,
        rows=found.rows,
        left_out=found.left_out,
        shares=evaluation.level_shares(numbers, plan.levels),
        trained_on=int((~held).sum()),
        parameters=size,
        final_loss=float(np.mean(losses[-max(1, len(losses) // 10) :])),
        evaluation=evaluation.evaluate(probabilities[held], numbers[held]),
        student=agreement,
        student_accuracy=student_accuracy,
        penalty=None if student is None else student.penalty,
        readability=distil.agreement(probabilities[held], readability[held]),
        int8=_int8(plan, teacher, texts, numbers, probabilities, held, progress),
        digests=digests,
    )


def _check(plan: Plan) -> None:
    """What can be seen to be wrong before anything is read."""
    if plan.output.exists() and any(plan.output.iterdir()) and not plan.overwrite:
        raise DataError(
            f"{plan.output}: this folder is not empty; choose another, or give --overwrite"
        )
    if len(plan.levels) < 2 or len(set(plan.levels)) < len(plan.levels):
        raise DataError(f"levels {', '.join(plan.levels)}: name two or more, each once")
    if not 0 < plan.held_out < 1:
        raise DataError(f"--held-out {plan.held_out}: a share between 0 and 1, such as 0.1")
    settings = plan.settings
    if min(settings.epochs, settings.batch_size, plan.documents, plan.max_tokens) < 1:
        raise DataError("--epochs, --batch-size, --documents and --max-tokens start at 1")
    if settings.max_length < 3 or not settings.learning_rate > 0:
        raise DataError("--max-length starts at 3, and --learning-rate above 0")
    if plan.cuts is not None and plan.label_key is None:
        if len(plan.cuts) != len(plan.levels) - 1 or list(plan.cuts) != sorted(set(plan.cuts)):
            raise DataError(
                f"{len(plan.levels)} levels are cut by {len(plan.levels) - 1} rising grades, not "
                f"{', '.join(f'{cut:g}' for cut in plan.cuts) or 'none'}: give --cuts or --quantiles"
            )
    evaluation.sklearn_metrics()
    if plan.label_key is None:
        labels.Grader()
    if plan.export_onnx:
        onnx_int8.check_installed()
    with quiet_transformers():
        pass


def _labelled(
    plan: Plan, progress: Progress
) -> tuple[list[str], NDArray[np.int64], NDArray[np.bool_], Sample, str]:
    """Texts, level numbers, which are held out, what they were taken from, and how labelled."""
    with progress.phase("reading") as show:
        found = sample(
            plan.inputs,
            documents=plan.documents,
            seed=plan.settings.seed,
            text_key=plan.text_key,
            label_key=plan.label_key,
            progress=lambda share: show(share, ""),
        )
    progress.say(f"took {len(found.texts)} documents of {found.rows} rows")
    held = found.held_out(plan.held_out)
    if found.labels is not None:
        numbers = level_numbers(found.labels, plan.levels)
        return found.texts, numbers, held, found, f"field {plan.label_key!r}"
    with progress.phase("grading") as show:
        grades = labels.grades(found.texts, _counting(show, len(found.texts)))
    good = np.isfinite(grades)
    if not good.any():
        raise DataError(
            f"none of {len(found.texts)} documents has enough words to be graded: give labels"
        )
    cuts = plan.cuts
    if cuts is None:  # fitted without the held-out documents
        cuts = labels.quantile_cuts(grades[good & ~held], len(plan.levels))
    found.left_out["too short to grade"] = int((~good).sum())
    texts = [found.texts[index] for index in np.flatnonzero(good)]
    words = ", ".join(f"{cut:.4g}" for cut in cuts)
    source = f"silver: readability grade cut at {words}"
    return texts, labels.cut(grades[good], cuts), held[good], found, source


def _model(plan: Plan, texts: Sequence[str]) -> classifiers.Classifier:
    """The untrained classifier; a vocabulary is made from the training texts alone."""
    length, seed = plan.settings.max_length, plan.settings.seed
    if plan.init is not None:
        return classifiers.pretrained(plan.init, plan.levels, max_length=length, seed=seed)
    return classifiers.from_scratch(
        texts,
        plan.levels,
        layers=plan.layers,
        hidden_size=plan.hidden_size,
        vocab_size=plan.vocab_size,
        max_length=length,
        seed=seed,
    )


def _train(
    plan: Plan,
    model: classifiers.Classifier,
    texts: Sequence[str],
    numbers: NDArray[np.int64],
    held: NDArray[np.bool_],
    progress: Progress,
) -> list[float]:
    with progress.phase("training") as show:
        losses = classifiers.train(
            model,
            [texts[index] for index in np.flatnonzero(~held)],
            numbers[~held],
            plan.settings,
            lambda at: show(at.documents / at.total, f", loss {at.loss:.3f}"),
        )
    progress.say(f"trained; loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
    return losses


def _prepare(plan: Plan) -> None:
    """Makes the output folder; takes away what an earlier run left of this one's names."""
    for name in ("distilbert", "linear"):
        if (plan.output / name).is_dir():
            shutil.rmtree(plan.output / name)
    plan.output.mkdir(parents=True, exist_ok=True)


def _probabilities(
    teacher: DistilBert, texts: Sequence[str], name: str, progress: Progress
) -> NDArray[np.float64]:
    with progress.phase(name) as show:
        return teacher.probabilities(texts, _counting(show, len(texts)))


def _student(
    plan: Plan,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    probabilities: NDArray[np.float64],
    held: NDArray[np.bool_],
) -> tuple[distil.Student, NDArray[np.float32]]:
    """The student, fitted on the training documents, and its scores of all."""
    engine = open_engine(tokenizer)
    heads: list[Any] = []
    for start in range(0, len(texts), _ENCODED_TOGETHER):
        batch = engine.encode(list(texts[start : start + _ENCODED_TOGETHER]))
        for first, last in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
            heads.append(batch.flat[first : min(last, first + plan.max_tokens)].copy())
    targets = probabilities @ np.arange(len(plan.levels))
    student = distil.fit(
        _joined(heads, ~held),
        targets[~held],
        levels=plan.levels,
        max_tokens=plan.max_tokens,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.file_hash,
        seed=plan.settings.seed,
    )
    scores = student.scorer.score(texts, _joined(heads, np.ones(len(texts), dtype=np.bool_)))
    return student, scores


def _joined(heads: Sequence[NDArray[Any]], chosen: NDArray[np.bool_]) -> TokenBatch:
    kept = [heads[index] for index in np.flatnonzero(chosen)]
    offsets = np.zeros(len(kept) + 1, dtype=np.int64)
    np.cumsum([each.size for each in kept], out=offsets[1:])
    return TokenBatch(flat=np.concatenate(kept), offsets=offsets)


def _int8(
    plan: Plan,
    teacher: DistilBert,
    texts: Sequence[str],
    numbers: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    held: NDArray[np.bool_],
    progress: Progress,
) -> Int8 | None:
    if not plan.export_onnx:
        return None
    progress.say("exporting int8")
    folder = plan.output / "distilbert"
    onnx_int8.export(folder)
    small = open_model(folder, max_length=teacher.max_length, backend="onnx")
    chosen = [texts[index] for index in np.flatnonzero(held)]
    own = _probabilities(small, chosen, "scoring with int8", progress)
    ranks = np.arange(len(plan.levels))
    return Int8(
        accuracy=float((own.argmax(axis=1) == numbers[held]).mean()),
        spearman=distil.spearman(own @ ranks, probabilities[held] @ ranks),
        mean_difference=float(np.abs((own - probabilities[held]) @ ranks).mean()),
    )


def _counting(show: Callable[[float, str], None], total: int) -> Callable[[int], None]:
    """Counts what it is told, and shows the share of `total`."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        show(done / total, "")

    return count

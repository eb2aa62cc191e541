"""From text shards to a trained classifier, its linear student, and figures on both."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megagrow.difficulty import classifier as classifiers
from megagrow.difficulty import distil, evaluation, labels, onnx_int8, store
from megagrow.difficulty.distilbert import DistilBert, open_model, quiet_transformers
from megagrow.difficulty.examples import Sample, check_sizes, level_numbers, sample
from megagrow.difficulty.progress import Progress
from megagrow.difficulty.readability import Readability
from megagrow.difficulty.training_outcome import Int8, Student, TrainingOutcome
from megagrow.difficulty.training_plan import TrainingPlan
from megagrow.errors import DataError
from megagrow.tokenization.batch import TokenBatch
from megagrow.tokenization.engine import open_engine
from megagrow.tokenization.tokenizer import Tokenizer
from megagrow.tokenization.tokenizer import load as load_tokenizer

_ENCODED_TOGETHER = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class _Documents:
    """Labelled documents."""

    texts: list[str]
    """The texts."""
    numbers: NDArray[np.int64]
    """Level number of each, shape [documents]."""
    held: NDArray[np.bool_]
    """Which are held out, shape [documents]."""
    source: str
    """Where the labels are from, in words."""

    def of(self, chosen: NDArray[np.bool_]) -> list[str]:
        """The texts that are flagged."""
        return list(compress(self.texts, chosen.tolist()))


def train(plan: TrainingPlan, progress: Progress) -> TrainingOutcome:
    """Runs a plan; `plan.output` then holds `distilbert/` and, with a tokenizer, `linear/`.

    Raises:
        DataError: input that cannot be used, a package that is missing, or an output folder that
            holds something; all before training.
        TrainingError: the loss is not finite.
    """
    _check(plan)
    tokenizer = None if plan.lm_tokenizer is None else load_tokenizer(plan.lm_tokenizer)
    found = _read(plan, progress)
    documents = _labelled(plan, found, progress)
    held = documents.held
    check_sizes(documents.numbers, held, plan.levels)
    model = _model(plan, documents.of(~held))
    size = sum(each.numel() for each in model.model.parameters())
    progress.say(
        f"training {size / 1e6:.1f} M parameters on {np.sum(~held)} documents, "
        f"{np.sum(held)} held out"
    )
    losses = _train(plan, model, documents, progress)
    folder = plan.output / "distilbert"
    _prepare(plan)
    model.save(folder)
    teacher = open_model(folder, max_length=plan.settings.max_length, device=plan.settings.device)
    store.save(teacher, folder)
    probabilities = _probabilities(teacher, documents.texts, "scoring", progress)
    result = evaluation.evaluate(probabilities[held], documents.numbers[held])
    student = None if tokenizer is None else _student(plan, tokenizer, documents, probabilities)
    digests = {"distilbert": teacher.digest}
    if student is not None:
        digests["linear"] = student.digest
    readability = Readability().score(documents.of(held), None)
    return TrainingOutcome(
        levels=plan.levels,
        source=documents.source,
        rows=found.rows,
        left_out=found.left_out | {"too short to grade": len(found.texts) - len(documents.texts)},
        shares=evaluation.level_shares(documents.numbers, plan.levels),
        trained_on=int((~held).sum()),
        parameters=size,
        final_loss=float(np.mean(losses[-max(1, len(losses) // 10) :])),
        evaluation=result,
        student=student,
        readability=distil.agreement(probabilities[held], readability),
        int8=_int8(plan, teacher, documents, probabilities, progress),
        digests=digests,
    )


def _check(plan: TrainingPlan) -> None:
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
    if min(settings.epochs, settings.batch_size, plan.documents, plan.student_tokens) < 1:
        raise DataError("--epochs, --batch-size, --documents and --max-tokens start at 1")
    if settings.max_length < 3 or not settings.learning_rate > 0:
        raise DataError("--max-length starts at 3, and --learning-rate above 0")
    cuts = None if plan.label_key is not None else plan.cuts
    if cuts is not None and (len(cuts) != len(plan.levels) - 1 or list(cuts) != sorted(set(cuts))):
        raise DataError(
            f"{len(plan.levels)} levels are cut by {len(plan.levels) - 1} rising grades, not by "
            f"{', '.join(f'{cut:g}' for cut in cuts) or 'none'}: give --cuts or --quantiles"
        )
    evaluation.sklearn_metrics()
    if plan.label_key is None:
        labels.Grader()
    if plan.export_onnx:
        onnx_int8.check_installed()
    with quiet_transformers():
        pass
    if plan.init is None:
        classifiers.check_shape(plan.layers, plan.hidden_size)
    else:
        classifiers.check_pretrained(plan.init, max_length=settings.max_length)


def _read(plan: TrainingPlan, progress: Progress) -> Sample:
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
    return found


def _labelled(plan: TrainingPlan, found: Sample, progress: Progress) -> _Documents:
    held = found.held_out(plan.held_out)
    if found.labels is not None:
        return _Documents(
            texts=found.texts,
            numbers=level_numbers(found.labels, plan.levels),
            held=held,
            source=f"field {plan.label_key!r}",
        )
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
    words = ", ".join(f"{cut:.4g}" for cut in cuts)
    return _Documents(
        texts=list(compress(found.texts, good.tolist())),
        numbers=labels.cut(grades[good], cuts),
        held=held[good],
        source=f"silver: readability grade cut at {words}",
    )


def _model(plan: TrainingPlan, texts: Sequence[str]) -> classifiers.Classifier:
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
    plan: TrainingPlan,
    model: classifiers.Classifier,
    documents: _Documents,
    progress: Progress,
) -> list[float]:
    with progress.phase("training") as show:
        losses = classifiers.train(
            model,
            documents.of(~documents.held),
            documents.numbers[~documents.held],
            plan.settings,
            lambda at: show(at.documents / at.total, f", loss {at.loss:.3f}"),
        )
    progress.say(f"trained; loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
    return losses


def _prepare(plan: TrainingPlan) -> None:
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
    plan: TrainingPlan,
    tokenizer: Tokenizer,
    documents: _Documents,
    probabilities: NDArray[np.float64],
) -> Student:
    """Fits the student on the training documents, saves it, and compares it on the others."""
    held, ranks = documents.held, np.arange(len(plan.levels))
    fitted = distil.fit(
        _heads(tokenizer, documents.of(~held), plan.student_tokens),
        probabilities[~held] @ ranks,
        levels=plan.levels,
        max_tokens=plan.student_tokens,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.file_hash,
        seed=plan.settings.seed,
    )
    store.save(fitted.scorer, plan.output / "linear")
    scores = fitted.scorer.score((), _heads(tokenizer, documents.of(held), plan.student_tokens))
    return Student(
        digest=fitted.scorer.digest,
        penalty=fitted.penalty,
        accuracy=distil.cut_accuracy(scores, documents.numbers[held], len(plan.levels)),
        agreement=distil.agreement(probabilities[held], scores),
    )


def _heads(tokenizer: Tokenizer, texts: Sequence[str], first: int) -> TokenBatch:
    """The first ids of each text, encoded a few at a time: whole texts would not fit."""
    engine = open_engine(tokenizer)
    heads: list[NDArray[Any]] = [np.zeros(0, dtype=np.uint32)]
    for start in range(0, len(texts), _ENCODED_TOGETHER):
        batch = engine.encode(list(texts[start : start + _ENCODED_TOGETHER]))
        borders = zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True)
        heads += [batch.flat[begin : min(end, begin + first)].copy() for begin, end in borders]
    return TokenBatch(flat=np.concatenate(heads), offsets=np.cumsum([head.size for head in heads]))


def _int8(
    plan: TrainingPlan,
    teacher: DistilBert,
    documents: _Documents,
    probabilities: NDArray[np.float64],
    progress: Progress,
) -> Int8 | None:
    if not plan.export_onnx:
        return None
    progress.say("exporting int8")
    folder = plan.output / "distilbert"
    onnx_int8.export(folder)
    small = open_model(folder, max_length=teacher.max_length, backend="onnx")
    held, ranks = documents.held, np.arange(len(plan.levels))
    own = _probabilities(small, documents.of(held), "scoring with int8", progress)
    return Int8(
        accuracy=float((own.argmax(axis=1) == documents.numbers[held]).mean()),
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

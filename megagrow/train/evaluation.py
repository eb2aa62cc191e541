"""Validation of the live model of a run."""

from __future__ import annotations

from megagrow.evaluate.validation import validation_losses
from megagrow.train.engine import Engine
from megagrow.train.run import Run
from megagrow.train.state import TrainState


def validation(run: Run, engine: Engine, state: TrainState) -> dict[str, float]:
    """Mean loss per token of each bucket's held-out part, in nats; call on every rank.

    Empty where nothing is held out.
    """
    if not run.data.validation:
        return {}
    stage = run.stage(state)
    engine.settle()
    engine.fade_in(stage, run.plan.tokens_at(state.step))
    return validation_losses(
        engine.chunks,
        run.data.validation,
        sequences=run.config.evaluation.sequences,
        micro_size=stage.config.batch.micro_size,
        vocab_size=run.config.model.vocab_size,
    )


def as_record(losses: dict[str, float]) -> dict[str, object]:
    """The losses as they are recorded: each bucket's, and their mean; nothing if there are none."""
    if not losses:
        return {}
    return {"losses": losses, "loss": sum(losses.values()) / len(losses)}

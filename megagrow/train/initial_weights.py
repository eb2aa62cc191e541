"""The weights that a run begins with where they are another checkpoint's."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from megagrow.checkpoint import integrity, sharded
from megagrow.checkpoint.guard import guarded
from megagrow.checkpoint.store import read_state
from megagrow.config.schema import ModelConfig
from megagrow.conversion.exporting import find_checkpoint, stored_model
from megagrow.conversion.unfinished import refuse_masks
from megagrow.errors import CheckpointError
from megagrow.model.layer import LayerShape
from megagrow.model.shape import model_shape
from megagrow.plan.schedule import StagePlan
from megagrow.runtime import failure, processes
from megagrow.train.engine import Engine
from megagrow.train.run import Run

_MEND = "Set initialise_from to another checkpoint, or remove it to begin with drawn weights."
_FREE = ("dropout", "init", "seq_length")
"""Keys of the model that its stored weights do not depend on; learned positions aside."""


def read_initial_weights(run: Run, engine: Engine, stage: StagePlan) -> None:
    """Fills a new model from the checkpoint that `initialise_from` names; call on every rank.

    Moments are zero, and the base model's training is not among the run's FLOPs.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of another model.
    """
    source = run.config.initialise_from
    if source is None:
        return
    checkpoint, document = failure.on_main(lambda: _find(Path(source)))
    failure.on_main(lambda: _check_model(run, stage, checkpoint, document))
    with failure.together():
        integrity.check_contents(
            checkpoint,
            document["files"],
            _MEND,
            rank=processes.rank(),
            ranks=processes.world_size(),
        )
    with guarded(checkpoint, "loading", _MEND):
        sharded.load(engine.trained(0), checkpoint, moments=lambda _: None)
    run.progress.note(f"weights of {checkpoint}")


def _find(source: Path) -> tuple[Path, dict[str, Any]]:
    checkpoint = find_checkpoint(source)
    return checkpoint, read_state(checkpoint)


def _check_model(run: Run, stage: StagePlan, checkpoint: Path, document: dict[str, Any]) -> None:
    stored, layers = stored_model(document, checkpoint)
    wanted = stage.config.model
    free = _FREE if wanted.style == "llama" else _FREE[:2]
    there, here = _resolved(stored, layers), _resolved(wanted, stage.shape.num_layers)
    found = [
        f"model.{name}: {there[name]} there, {here[name]} here"
        for name in here
        if name not in free and there[name] != here[name]
    ]
    if layers != stage.shape.num_layers:
        found.append(f"layers: {layers} there, {stage.shape.num_layers} in stage {stage.name!r}")
    if found:
        listed = "\n  ".join(found)
        raise CheckpointError(
            f"initialise_from: {checkpoint} is of another model:\n  {listed}\n{_MEND}"
        )
    refuse_masks(document, checkpoint)
    saved = document["config"]["stages"][document["train"]["stage"]]
    if saved.get("trainable", "all") != "all":
        raise CheckpointError(
            f"initialise_from: {checkpoint} is of a stage that trains only a part of its model, "
            f"and holds no master weights of the rest. Take one of a later stage. {_MEND}"
        )


def _resolved(model: ModelConfig, layers: int) -> dict[str, Any]:
    """All keys of a model, those that are unset as they follow from others."""
    shape = model_shape(model, layers)
    plain = {entry.name: getattr(model, entry.name) for entry in fields(model)}
    for entry in fields(LayerShape):
        sizes = [getattr(layer, entry.name) for layer in shape.layers]
        plain[entry.name] = sizes[0] if len(set(sizes)) == 1 else sizes
    return {**plain, "layer_scaling": None, "tie_embeddings": shape.tie_embeddings}

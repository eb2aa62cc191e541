"""The operator `learned` in a run: LiGO's matrices, trained on the batches that come next."""

from __future__ import annotations

from contextlib import closing

from megagrow.growth.dealing import Gather
from megagrow.growth.ligo.jobs import ligo_jobs
from megagrow.growth.ligo.operator import Ligo
from megagrow.growth.ligo.settings import ligo_settings
from megagrow.growth.ligo.training import train_ligo
from megagrow.growth.making import Making
from megagrow.growth.seeds import draw_seed
from megagrow.model import forward_backward
from megagrow.model.forward_backward import GlobalBatch
from megagrow.pipeline.redistribution.shards import Shards, gradients_of, publish
from megagrow.plan.schedule import StagePlan
from megagrow.runtime import device
from megagrow.train.data import stage_batches
from megagrow.train.engine import Engine
from megagrow.train.run import Run
from megagrow.train.state import TrainState

_NOTES = 10
"""How often the loss is shown while learning."""


class LearnedGrowth:
    """G_learn (LiGO, arXiv 2303.00980): into one stage of a run.

    It reads the batches that the stage begins with and leaves the sampler where it is: the stage
    trains on them again.

    Args:
        run: the run.
        old: the stage before.
        state: where the run is, its stage the new one.
    """

    def __init__(self, run: Run, old: StagePlan, state: TrainState) -> None:
        self._run, self._state, self._new = run, state, run.stage(state)
        transition = self._new.config.transition
        self._settings = ligo_settings(None if transition is None else transition.learned)
        seed = draw_seed(run.config.seed, self._new.index)
        self._ligo = Ligo(old.shape, self._new.shape, self._settings, seed).to(device.device())
        self.jobs: list[Making] = ligo_jobs(self._ligo)
        """What makes the model, once it has been learned how."""
        self.losses: list[float] = []
        """The loss before each step."""

    def learn(self, engine: Engine, shards: Shards, gather: Gather) -> None:
        """Trains the matrices; call on every rank, between the old model and the new one.

        Args:
            engine: the new model.
            shards: its optimizer state here; overwritten.
            gather: gives tensors of the old model.

        Raises:
            TrainingError: the loss is not finite.
        """
        run, stage = self._run, self._new
        model = engine.trained(0)
        with closing(stage_batches(run.config, run.data, stage, self._state.sampler)) as batches:  # type: ignore[type-var]

            def loss_of() -> float:
                publish(model, engine.chunks)
                for chunk in engine.chunks:
                    chunk.zero_grad_buffer()
                share = GlobalBatch(
                    data=next(batches).micro_batches,
                    count=stage.micro_batches,
                    micro_size=stage.config.batch.micro_size,
                    seq_length=stage.shape.seq_length,
                )
                reduced = forward_backward.run(engine.chunks, share, forward_only=False)
                return reduced.read()[0]

            self.losses = train_ligo(
                self._ligo,
                self.jobs,
                shards,
                gradients_of(model),
                gather,
                loss_of,
                self._settings,
                staging_bytes=run.config.checkpoint.growth_staging,
                progress=self._show,
            )

    def _show(self, step: int, loss: float) -> None:
        steps = self._settings.steps
        if step % max(1, steps // _NOTES) == 0 or step == steps:
            self._run.progress.note(f"learning to grow: step {step} of {steps}, loss {loss:.4f}")

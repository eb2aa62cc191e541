"""Predicted layers of a stored model: made kind by kind, kept on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from megagrow.conversion.layout import TensorSource
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.growth.lesa.expansion import Report, predict
from megagrow.growth.lesa.settings import LesaSettings
from megagrow.model.shape import ModelShape
from megagrow.model.tensors import Role, TensorName

KINDS = (
    Role.QUERY, Role.KEY, Role.VALUE, Role.ATTENTION_OUTPUT, Role.GATE, Role.UP, Role.DOWN,
)  # fmt: skip
"""What LESA predicts, each by itself; norms and biases are copied."""

Progress = Callable[[Role, str, float], None]
"""Told the kind, the phase, and the share of it that is done."""


class PredictedLayers:
    """The matrices of new layers between old ones (LESA, arXiv 2502.13794).

    One kind of matrix is in memory at a time: that of all layers, twice.

    Args:
        source: the old model under megatron-core's keys.
        shape: the old model; its layers are alike.
        left_of: for each new layer (its number in the new model), the old layer before it.
        settings: how predictors are trained.
        folder: where to keep the matrices; not removed.
        progress: told how far it is.

    Raises:
        ConfigError: fewer than three layers.
        TrainingError: weights, or a predictor's loss, are not finite.
    """

    def __init__(
        self,
        source: TensorSource,
        shape: ModelShape,
        left_of: Mapping[int, int],
        settings: LesaSettings,
        folder: Path,
        progress: Progress = lambda kind, phase, share: None,
    ) -> None:
        self._source, self._layout = source, megatron_layout(shape)
        self._folder, self._layers = folder, frozenset(left_of)
        self.reports: dict[Role, Report] = {}
        """What each prediction learned and took."""
        for kind in KINDS:
            if TensorName(role=kind, layer=0) in self._layout.by_name:
                self._predict(kind, shape.num_layers, left_of, settings, progress)

    def _predict(
        self,
        kind: Role,
        layers: int,
        left_of: Mapping[int, int],
        settings: LesaSettings,
        progress: Progress,
    ) -> None:
        matrices = [self._matrix(TensorName(role=kind, layer=layer)) for layer in range(layers)]
        found = predict(
            matrices,
            list(left_of.values()),
            settings,
            progress=lambda phase, share: progress(kind, phase, share),
        )
        self.reports[kind] = found.report
        new = zip(left_of, found.matrices, strict=True)
        save_file({str(layer): matrix.contiguous() for layer, matrix in new}, self._file(kind))

    def __call__(self, name: TensorName) -> Tensor | None:
        """A tensor of a new layer; None: it is not predicted."""
        if name.layer not in self._layers or name.bias or name.role not in self.reports:
            return None
        with safe_open(self._file(name.role), framework="pt") as file:
            tensor: Tensor = file.get_tensor(str(name.layer))
        return tensor

    def _matrix(self, name: TensorName) -> Tensor:
        stored = self._layout.by_name[name]
        return self._layout.split(stored, self._source.tensor(stored.key))[name].clone()

    def _file(self, kind: Role) -> Path:
        return self._folder / f"{kind.name.lower()}.safetensors"

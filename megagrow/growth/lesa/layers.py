"""Predicted layers of a stored model: made kind by kind, kept on disk until they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from megagrow.conversion.layout import TensorSource
from megagrow.conversion.megatron_names import megatron_layout
from megagrow.growth.keys import layer_of
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


def predicted_parts(
    kind: Role,
    matrices: Sequence[Tensor],
    left_of: Mapping[int, int],
    settings: LesaSettings,
    progress: Callable[[str, float], None] = lambda phase, share: None,
) -> tuple[dict[TensorName, Tensor], Report]:
    """The matrices of one kind of new layers between old ones (LESA, arXiv 2502.13794).

    Args:
        kind: one of `KINDS`.
        matrices: [out, in] each, of all old layers.
        left_of: for each new layer (its number in the new model), the old layer before it.
        settings: how the predictor is trained.
        progress: told how far it is.

    Raises:
        ConfigError: fewer than three layers.
        TrainingError: weights, or the predictor's loss, are not finite.
    """
    found = predict(matrices, list(left_of.values()), settings, progress=progress)
    new = zip(left_of, found.matrices, strict=True)
    return {TensorName(role=kind, layer=layer): matrix for layer, matrix in new}, found.report


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
        found, self.reports[kind] = predicted_parts(
            kind,
            matrices,
            left_of,
            settings,
            progress=lambda phase, share: progress(kind, phase, share),
        )
        save_file(
            {str(name.layer): matrix.contiguous() for name, matrix in found.items()},
            self._file(kind),
        )

    def __call__(self, key: str) -> dict[TensorName, Tensor]:
        """What is predicted of a stored tensor of the deeper model."""
        layer = layer_of(key)
        if layer is None or layer not in self._layers:
            return {}
        # The same tensor of any old layer is made of the same parts.
        stored = self._layout.by_key[key.replace(f"layers.{layer}.", "layers.0.", 1)]
        return {
            replace(name, layer=layer): self._read(name.role, layer)
            for name in stored.parts
            if name.role in self.reports and not name.bias
        }

    def _read(self, kind: Role, layer: int) -> Tensor:
        with safe_open(self._file(kind), framework="pt") as file:
            tensor: Tensor = file.get_tensor(str(layer))
        return tensor

    def _matrix(self, name: TensorName) -> Tensor:
        stored = self._layout.by_name[name]
        return self._layout.split(stored, self._source.tensor(stored.key))[name].clone()

    def _file(self, kind: Role) -> Path:
        return self._folder / f"{kind.name.lower()}.safetensors"

"""Measured times of a model's parts: the file that `tools/time_layers.py` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megagrow.config.schema import ParallelConfig
from megagrow.errors import LayoutError
from megagrow.model.layer import LayerShape
from megagrow.model.shape import ModelShape
from megagrow.pipeline.balancing.costs import LayerCosts

SCHEMA = 2
"""Version of the file's form."""

MODEL_KEYS = ("style", "hidden_size", "padded_vocab_size", "seq_length")
"""What, besides its layers, the times of a model's parts depend on."""

PARALLEL_KEYS = ("recompute", "cross_entropy_fusion", "gradient_accumulation_fusion")
"""Keys of `parallel` that they depend on, as they are written: unset is not `false`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTimes:
    """Seconds that the parts of a model take, forward and backward, for one micro-batch."""

    settings: Mapping[str, Any]
    """`timed_settings` of what was timed."""

    device: str
    """What it was timed on."""

    rounds: int
    """How often; a time is the median of that many."""

    layers: Mapping[LayerShape, float]
    """Of a layer of each shape."""

    embedding: float
    """Of the embedding."""

    output: float
    """Of final norm, output layer and loss."""

    def costs(
        self, shape: ModelShape, *, precision: str, micro_size: int, parallel: ParallelConfig
    ) -> LayerCosts:
        """The costs of a model of any depth whose parts are those that were timed.

        Args:
            shape: the model.
            precision: of its training.
            micro_size: sequences in a micro-batch.
            parallel: its recomputation and fusions.

        Raises:
            LayoutError: something else was timed; names every difference.
        """
        wanted = timed_settings(
            shape, precision=precision, micro_size=micro_size, parallel=parallel
        )
        faults = [
            f"{key} was {self.settings.get(key)}, and is {value}"
            for key, value in wanted.items()
            if self.settings.get(key) != value
        ]
        missing = [layer for layer in dict.fromkeys(shape.layers) if layer not in self.layers]
        faults += [f"no layer of {_written(layer)} was timed" for layer in missing]
        if faults:
            raise LayoutError(
                f"the layer times are of something else: {'; '.join(faults)}. Time this stage: "
                "tools/time_layers.py CONFIG --stage NAME"
            )
        return LayerCosts(
            layers=tuple(self.layers[layer] for layer in shape.layers),
            first=self.embedding,
            last=self.output,
            device=self.device,
        )

    def to_json(self) -> str:
        """The file's text."""
        layers = [
            {"shape": asdict(layer), "seconds": seconds} for layer, seconds in self.layers.items()
        ]
        return json.dumps(
            {
                "schema": SCHEMA,
                "device": self.device,
                "rounds": self.rounds,
                "settings": dict(self.settings),
                "layers": layers,
                "embedding": self.embedding,
                "output": self.output,
            },
            indent=1,
        )


def timed_settings(
    shape: ModelShape, *, precision: str, micro_size: int, parallel: ParallelConfig
) -> dict[str, Any]:
    """What times depend on besides the shapes of the layers. Arguments as `LayerTimes.costs`."""
    return {
        **{key: getattr(shape, key) for key in MODEL_KEYS},
        "precision": precision,
        "micro_size": micro_size,
        **{key: getattr(parallel, key) for key in PARALLEL_KEYS},
    }


def read_layer_times(path: str | Path) -> LayerTimes:
    """The times in a file.

    Raises:
        LayoutError: the file is not there, or `tools/time_layers.py` did not write it.
    """
    hint = "write one with tools/time_layers.py, or set parallel.balance to flops"
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LayoutError(f"layer times {path}: {error.strerror}; {hint}") from None
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"layer times {path}: not JSON: {error}; {hint}") from None
    if isinstance(data, dict) and data.get("schema") not in (SCHEMA, None):
        raise LayoutError(
            f"layer times {path}: of version {data['schema']}, and this program reads {SCHEMA}; "
            f"{hint}"
        )
    try:
        return LayerTimes(
            settings=dict(data["settings"]),
            device=str(data["device"]),
            rounds=int(data["rounds"]),
            layers={
                LayerShape(**layer["shape"]): _seconds(layer["seconds"]) for layer in data["layers"]
            },
            embedding=_seconds(data["embedding"]),
            output=_seconds(data["output"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise LayoutError(f"layer times {path}: damaged: {error!r}; {hint}") from None


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < 1e6:
        raise ValueError(f"{value!r} is no number of seconds")
    return seconds


def _written(layer: LayerShape) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(layer).items())

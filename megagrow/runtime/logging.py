"""Log lines: rank 0 tells how the run goes, the others only warn, and say who they are."""

from __future__ import annotations

import logging
import os
import warnings

from megagrow.runtime import device, processes

_HANDLER_NAME = "megagrow"

#: Messages of third parties about optional parts that are absent: true, known and harmless.
_NOISE = (
    "Apex is not installed",
    "apex is not installed",
    "Transformer Engine and Apex are not installed",
    "Transformer Engine is not installed",
    "TransformerEngine not found",
    "transformer_engine is not installed",
    "Falling back to Torch",
    "falling back to Torch",
    "No module named 'triton'",
    "Transformer Engine and Apex",
    "torchao",
    "MCore's async save is deprecated",
)

#: Warnings that torch and megatron-core make on their own account, not on ours.
_WARNINGS = (
    r"The \.grad attribute of a Tensor that is not a leaf Tensor is being accessed",
    "full scope is deprecated",
)

#: Those that say something on a GPU only.
_GPU_WARNINGS = ("CUDA_DEVICE_MAX_CONNECTIONS",)

#: Roots of loggers that write pages at INFO, such as every parameter's name.
_THIRD_PARTIES = ("megatron", "torch", "nvidia_resiliency_ext", "transformer_engine")
_THIRD_PARTY_MODULES = r"(megatron|torch)\..*"


def configure(level: int | str = logging.INFO) -> None:
    """Send the log of this process to stderr; safe to call again.

    Args:
        level: Lowest level that rank 0 writes; the other ranks write warnings and above.
    """
    chosen = logging.getLevelName(level) if isinstance(level, str) else level
    place = processes.place_from_environment(os.environ)
    handler = logging.StreamHandler()
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(_Formatter(place.rank))
    handler.addFilter(_is_not_noise)
    root = logging.getLogger()
    for old in [each for each in root.handlers if each.get_name() == _HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(chosen if place.rank == 0 else max(chosen, logging.WARNING))
    for name in _THIRD_PARTIES:
        logging.getLogger(name).setLevel(max(chosen, logging.WARNING))
    ignore_noise()


def ignore_noise() -> None:
    """Keeps back what third parties warn of that is true, known and harmless."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=_THIRD_PARTY_MODULES)
    for text in (*_NOISE, *_WARNINGS, *(() if device.is_cuda() else _GPU_WARNINGS)):
        warnings.filterwarnings("ignore", message=f".*{text}.*")


class _Formatter(logging.Formatter):
    """What the run tells goes without ado; everything else with rank, level and origin."""

    _TIME = "%H:%M:%S"

    def __init__(self, rank: int) -> None:
        super().__init__("%(asctime)s %(message)s", datefmt=self._TIME)
        self._origin = logging.Formatter(
            f"%(asctime)s [rank {rank}] %(levelname)s %(name)s: %(message)s", datefmt=self._TIME
        )

    def format(self, record: logging.LogRecord) -> str:
        told = record.levelno == logging.INFO and record.name.split(".")[0] == "megagrow"
        return super().format(record) if told else self._origin.format(record)


def _is_not_noise(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in _NOISE)

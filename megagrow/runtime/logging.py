"""Log lines that say which rank speaks; rank 0 tells, the others only warn."""

from __future__ import annotations

import logging
import os
import warnings

from megagrow.runtime import processes

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
)

#: Warnings that torch and megatron-core make on their own account, not on ours.
_WARNINGS = (
    r"The \.grad attribute of a Tensor that is not a leaf Tensor is being accessed",
    "full scope is deprecated",
    "CUDA_DEVICE_MAX_CONNECTIONS",
)

#: Roots of loggers that write pages at INFO, such as every parameter's name.
_THIRD_PARTIES = ("megatron", "torch", "nvidia_resiliency_ext", "transformer_engine")
_THIRD_PARTY_MODULES = r"(megatron|torch)\..*"


def configure(level: int | str = logging.INFO) -> None:
    """Send the log of this process to stderr, each line with its rank; safe to call again.

    Args:
        level: Lowest level that rank 0 writes; the other ranks write warnings and above.
    """
    chosen = logging.getLevelName(level) if isinstance(level, str) else level
    place = processes.place_from_environment(os.environ)
    handler = logging.StreamHandler()
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(
        logging.Formatter(
            f"%(asctime)s [rank {place.rank}] %(levelname)s %(name)s: %(message)s",
            datefmt="%H:%M:%S",
        )
    )
    handler.addFilter(_is_not_noise)
    root = logging.getLogger()
    for old in [each for each in root.handlers if each.get_name() == _HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(chosen if place.rank == 0 else max(chosen, logging.WARNING))
    for name in _THIRD_PARTIES:
        logging.getLogger(name).setLevel(max(chosen, logging.WARNING))
    warnings.filterwarnings("ignore", category=FutureWarning, module=_THIRD_PARTY_MODULES)
    for text in (*_NOISE, *_WARNINGS):
        warnings.filterwarnings("ignore", message=f".*{text}.*")


def _is_not_noise(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in _NOISE)

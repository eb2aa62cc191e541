"""Importing megatron-core."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any


def load() -> None:
    """Imports megatron-core, quietly; where there is no GPU, without PyTorch's compiler.

    megatron-core gives its fused functions to ``torch.compile`` while it is imported, which loads
    the compiler: over a third of the processor time that a process on a CPU takes to start. Hardly
    one is called there, for the fusions are off; as they are written they compute the same.
    """
    import torch

    from megagrow.runtime import logging

    if "megatron.core" in sys.modules:
        return
    compiler = torch.compile
    if not torch.cuda.is_available():
        torch.compile = _as_written
    try:
        with warnings.catch_warnings():
            logging.ignore_noise()
            import megatron.core
            import megatron.core.models.gpt
            import megatron.core.optimizer
            import megatron.core.pipeline_parallel  # noqa: F401
    finally:
        torch.compile = compiler


def _as_written(model: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    """``torch.compile``, and as a decorator with options, that leaves functions alone."""
    return _as_written if model is None else model

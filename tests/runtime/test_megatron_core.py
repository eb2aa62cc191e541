"""megatron-core without PyTorch's compiler where there is no GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from megagrow.runtime import megatron_core

PROGRAM = """
import sys
from megagrow.runtime import logging, megatron_core
logging.configure()
megatron_core.load()
import torch
import megagrow.train.pretrain
from megatron.core.fusions.fused_bias_swiglu import swiglu
assert swiglu(torch.ones(2, 4)).shape == (2, 2)
print([name for name in sys.modules if name.startswith("torch._inductor")])
print(torch.compile.__module__, torch.compile.__name__)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="the compiler is used on a GPU")
def test_a_process_on_a_cpu_does_not_load_the_compiler_and_leaves_it_as_it_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "torch compile"]


def test_a_second_call_does_nothing() -> None:
    import megatron.core  # noqa: F401

    from megagrow.runtime import logging  # noqa: F401 - which it asks for what to keep back

    before = set(sys.modules)
    megatron_core.load()
    assert set(sys.modules) == before

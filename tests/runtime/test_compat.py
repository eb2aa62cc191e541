"""Saving, loading and going on must equal never having stopped, with torch's own AdamW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megagrow.runtime import compat, groups
from tests.distributed import World


def _resume(options: dict[str, Any], folder: str, in_background: bool = False) -> tuple[Any, ...]:
    import torch

    from megagrow.runtime import compat, groups, processes
    from tests.runtime import tiny_gpt

    trial = tiny_gpt.Trial(**options)
    path = Path(folder)
    if processes.is_main():
        path.mkdir(exist_ok=True)
    processes.barrier()

    job = tiny_gpt.build(trial)
    for number in range(2):
        tiny_gpt.step(job, number)
    saving = None
    if in_background:
        saving = tiny_gpt.save_async(job, folder)
    else:
        tiny_gpt.save(job, folder)
    unbroken = [tiny_gpt.step(job, number) for number in range(2, 5)]
    unbroken_weights = tiny_gpt.weights(job)
    compat.release(job.chunks)
    if saving is not None:
        assert saving.maybe_finalize_async_calls(blocking=True) == [0]
        saving.close()
    groups.tear_down()

    job = tiny_gpt.build(trial)
    with torch.no_grad():
        for parameter in (p for chunk in job.chunks for p in chunk.parameters()):
            parameter.zero_()
    tiny_gpt.load(job, folder)
    resumed = [tiny_gpt.step(job, number) for number in range(2, 5)]
    same = all(
        torch.equal(a, b) for a, b in zip(unbroken_weights, tiny_gpt.weights(job), strict=True)
    )
    compat.release(job.chunks)
    return unbroken, resumed, same


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("distributed_optimizer", [True, False], ids=["distributed", "replicated"])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"overlap": True},
        {"pipeline": 2},
        {"tensor": 2, "sequence_parallel": True},
        {"pipeline": 2, "virtual": 2},
    ],
    ids=["dp2", "dp2-overlap", "pp2", "tp2", "pp2v2"],
)
def test_resume_equals_never_stopping(
    world2: World, tmp_path: Path, layout: dict[str, Any], distributed_optimizer: bool, bf16: bool
) -> None:
    options = {
        **layout,
        "bf16": bf16,
        "distributed_optimizer": distributed_optimizer,
        "dropout": 0.1,
    }
    for unbroken, resumed, same in world2.run(_resume, options, str(tmp_path / "save")):
        assert resumed == unbroken
        assert same


@pytest.mark.parametrize("layout", [{}, {"pipeline": 2, "bf16": True}], ids=["dp2", "pp2"])
def test_save_in_the_background(world2: World, tmp_path: Path, layout: dict[str, Any]) -> None:
    for unbroken, resumed, same in world2.run(_resume, layout, str(tmp_path / "save"), True):
        assert resumed == unbroken
        assert same


def _release(options: dict[str, Any]) -> tuple[list[bool], list[bool]]:
    import gc
    import weakref

    from tests.runtime import tiny_gpt

    def trained(release: bool) -> list[Any]:
        job = tiny_gpt.build(tiny_gpt.Trial(**options))
        tiny_gpt.step(job, 0)
        parts = [*job.chunks, job.optimizer, job.config, *job.chunks[0].module.children()]
        alive = [weakref.ref(part) for part in parts]
        if release:
            compat.release(job.chunks)
        return alive

    kept = trained(release=False)
    groups.tear_down()
    freed = trained(release=True)
    groups.tear_down()
    gc.collect()
    return [part() is not None for part in kept], [part() is not None for part in freed]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bf16": True},
        {"distributed_optimizer": False, "bf16": True},
        {"overlap": True},
        {"pipeline": 2, "virtual": 2},
    ],
    ids=["fp32", "bf16", "replicated", "overlap", "interleaved"],
)
def test_released_models_are_freed(world2: World, options: dict[str, Any]) -> None:
    for kept, freed in world2.run(_release, options):
        assert not any(freed)
        if options == {}:
            assert all(kept), "megatron-core no longer keeps models alive: release may go"

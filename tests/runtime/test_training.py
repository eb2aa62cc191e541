"""Whether the runtime carries all of megatron-core that training uses, on gloo processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed import World, run_distributed

LAYOUTS: dict[str, dict[str, Any]] = {
    "dp2": {},
    "dp2-replicated": {"distributed_optimizer": False},
    "dp2-overlap": {"overlap": True},
    "tp2": {"tensor": 2},
    "tp2-sequence": {"tensor": 2, "sequence_parallel": True},
    "pp2": {"pipeline": 2},
    "pp2-interleaved": {"pipeline": 2, "virtual": 2},
}


def _train(options: dict[str, Any]) -> list[float]:
    from tests.runtime import tiny_gpt

    return tiny_gpt.train(tiny_gpt.Trial(**options))


def _train_each(trials: list[dict[str, Any]]) -> list[list[float]]:
    from megagrow.runtime import groups

    losses = []
    for options in trials:
        losses.append(_train(options))
        groups.tear_down()
    return losses


@pytest.fixture(scope="module")
def reference() -> dict[tuple[bool, int], list[float]]:
    """Losses of one process, by (bf16, layers)."""
    cases = [(False, 4), (True, 4), (False, 8)]
    trials = [{"bf16": bf16, "layers": layers} for bf16, layers in cases]
    return dict(zip(cases, run_distributed(_train_each, 1, trials)[0], strict=True))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_two_processes_train_as_one(
    world2: World,
    reference: dict[tuple[bool, int], list[float]],
    layout: dict[str, Any],
    bf16: bool,
) -> None:
    losses = world2.run(_train, {**layout, "bf16": bf16})[-1]
    # fp32: equal up to the order of sums; a wrong exchange shows in the third digit.
    assert losses == pytest.approx(reference[bf16, 4], rel=2e-3 if bf16 else 2e-6)


@pytest.mark.parametrize(
    "layout",
    [
        {"tensor": 2, "pipeline": 2, "sequence_parallel": True},
        {"pipeline": 2, "overlap": True},
        {"pipeline": 2, "virtual": 2, "overlap": True},
        {"pipeline": 4, "virtual": 2},
    ],
    ids=["tp2-pp2", "pp2-dp2", "pp2-interleaved-dp2", "pp4-interleaved"],
)
def test_four_processes_train_as_one(
    world4: World, reference: dict[tuple[bool, int], list[float]], layout: dict[str, Any]
) -> None:
    losses = world4.run(_train, {**layout, "layers": 8})[-1]
    assert losses == pytest.approx(reference[False, 8], rel=2e-6)


@pytest.mark.parametrize(
    "layout",
    [{}, {"tensor": 2, "sequence_parallel": True}, {"pipeline": 2}],
    ids=["dp2", "tp2-sequence", "pp2"],
)
def test_recomputed_activations_draw_the_same_dropout(
    world2: World, layout: dict[str, Any]
) -> None:
    plain, recomputed, without = world2.run(
        _train_each,
        [
            {**layout, "dropout": 0.2},
            {**layout, "dropout": 0.2, "recompute": True},
            {**layout, "recompute": True},
        ],
    )[-1]
    assert recomputed == plain
    assert recomputed != without

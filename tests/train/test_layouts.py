"""Every layout trains and grows as one process does, from the configuration to the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from megagrow.config import RunConfig
from megagrow.plan.schedule import make_plan
from tests.distributed import World
from tests.train import layouts
from tests.train.layouts import BATCH, LENGTH, Outcome, config_of, stage

OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True}
SEQUENCE = {"tensor": 2, "sequence_parallel": True}
INTERLEAVED = {"pipeline": 2, "virtual_pipeline": 2}

Sections = dict[str, Any]
FP32: Sections = {"optimizer": {"clip_grad": 0.8}}  # below the norms: every step is clipped
UNCLIPPED: Sections = {"optimizer": {"clip_grad": 0.0}}
BF16: Sections = {"precision": "bf16", "optimizer": {"clip_grad": 0.8}}
GPT2: Sections = {"model": {"style": "gpt2", "num_query_groups": 4}, **FP32}

LOSS_TOLERANCE = {"fp32": 5e-7, "bf16": 2e-3}
"""Relative. One fp32 step in the last digit is 1e-7; a wrong exchange shows in the third digit."""
NORM_TOLERANCE = {"fp32": 2e-6, "bf16": 2e-2}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layout of 2 layers, and of the 4 they grow into."""

    ranks: int
    small: dict[str, Any]
    large: dict[str, Any] | None = None
    sections: Sections = field(default_factory=lambda: FP32)
    micro: int = 2

    def config(self, buckets: Path, output: Path) -> RunConfig:
        large = self.small if self.large is None else self.large
        stages = (
            stage(2, 2, parallel=self.small),
            stage(4, 3, parallel=large, transition={"optimizer": "copy"}),
        )
        batch = {"global_size": BATCH, "micro_size": self.micro}
        return config_of(buckets, output, *stages, batch=batch, **self.sections)


CLOSE = {
    "micro1": Case(ranks=1, small={}, micro=1),
    "micro4": Case(ranks=1, small={}, micro=4),
    "replicated": Case(ranks=1, small={"distributed_optimizer": False}),
    "tp2": Case(ranks=2, small={"tensor": 2}),
    "tp2-sequence": Case(ranks=2, small=SEQUENCE),
    "tp2-sequence-full": Case(ranks=2, small={**SEQUENCE, "recompute": "full"}),
    "tp2-bf16": Case(ranks=2, small=SEQUENCE, sections=BF16),
    "pp2-clipped": Case(ranks=2, small={"pipeline": 2}, large=INTERLEAVED),
    "pp2-gpt2": Case(ranks=2, small={"pipeline": 2}, sections=GPT2),
    "dp2": Case(ranks=2, small={}),
    "dp2-replicated": Case(ranks=2, small={"distributed_optimizer": False}),
    "dp2-overlap-grad": Case(ranks=2, small={"overlap_grad_reduce": True}),
    "dp2-overlap": Case(ranks=2, small=OVERLAP),
    "dp2-buckets": Case(ranks=2, small={**OVERLAP, "ddp_bucket_size": 500}),
    "dp2-bf16-gradients": Case(
        ranks=2, small={**OVERLAP, "grad_reduce_in_fp32": False}, sections=BF16
    ),
    "dp2-micro1": Case(ranks=2, small={"recompute": "selective"}, micro=1),
    "dp2-bf16": Case(ranks=2, small=OVERLAP, sections=BF16),
    "dp2-replicated-bf16": Case(
        ranks=2, small={"distributed_optimizer": False}, large={}, sections=BF16
    ),
    "tp2-pp2": Case(ranks=4, small={**SEQUENCE, "pipeline": 2}),
    "tp2-dp2": Case(ranks=4, small={"tensor": 2, **OVERLAP}),
    "pp2-dp2": Case(ranks=4, small={"pipeline": 2}),
    "pp2-dp2-overlap": Case(
        ranks=4, small={"pipeline": 2, **OVERLAP}, large={**INTERLEAVED, **OVERLAP}
    ),
    "tp2-pp2-gpt2": Case(ranks=4, small={"tensor": 2, "pipeline": 2}, sections=GPT2),
    "tp2-pp2-bf16": Case(ranks=4, small={**SEQUENCE, "pipeline": 2}, sections=BF16),
}
"""Layouts that add up in another order: slices of a sum, of a batch, of a norm."""

EXACT = {
    "recompute-selective": Case(ranks=1, small={"recompute": "selective"}),
    "recompute-full": Case(ranks=1, small={"recompute": "full"}),
    "overlap-alone": Case(ranks=1, small=OVERLAP),
    "pp2": Case(ranks=2, small={"pipeline": 2}, sections=UNCLIPPED),
    "pp2-recompute": Case(ranks=2, small={"pipeline": 2, "recompute": "full"}, sections=UNCLIPPED),
    "pp2-interleaved": Case(ranks=2, small={"pipeline": 2}, large=INTERLEAVED, sections=UNCLIPPED),
    "pp2-overlap": Case(ranks=2, small={"pipeline": 2, **OVERLAP}, sections=UNCLIPPED),
    "replicated-unclipped": Case(
        ranks=1, small={"distributed_optimizer": False}, sections=UNCLIPPED
    ),
}
"""Layouts in which every number is the same sum: only a clipped step, which is scaled by a norm
that stages add up in another order, would tell them apart."""

Reference = Callable[[Sections], Outcome]


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.write_buckets(tmp_path_factory.mktemp("buckets"))


@pytest.fixture(scope="module")
def reference(world1: World, buckets: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The run of one process with the same sections."""
    made: dict[str, Outcome] = {}

    def outcome(sections: Sections) -> Outcome:
        key = repr(sections)
        if key not in made:
            config = Case(ranks=1, small={}, sections=sections).config(
                buckets, tmp_path_factory.mktemp("reference")
            )
            made[key] = layouts.train(world1, config)
        return made[key]

    return outcome


def outcome_of(request: pytest.FixtureRequest, case: Case, buckets: Path, output: Path) -> Outcome:
    world: World = request.getfixturevalue(f"world{case.ranks}")
    return layouts.train(world, case.config(buckets, output))


@pytest.mark.parametrize("case", CLOSE.values(), ids=CLOSE)
def test_layout_trains_and_grows_as_one_process(
    request: pytest.FixtureRequest, reference: Reference, buckets: Path, tmp_path: Path, case: Case
) -> None:
    expected = reference(case.sections)
    found = outcome_of(request, case, buckets, tmp_path)
    precision = case.sections.get("precision", "fp32")
    rel = LOSS_TOLERANCE[precision]
    assert found.losses == pytest.approx(expected.losses, rel=rel)
    assert found.norms == pytest.approx(expected.norms, rel=NORM_TOLERANCE[precision])
    assert found.evaluations == pytest.approx(expected.evaluations, rel=rel)
    assert found.samples == expected.samples
    assert [record["layers"] for record in found.of("step")] == [2, 2, 4, 4, 4]
    # The runs do learn: equal losses of models that stand still would prove nothing.
    assert expected.losses[-1] < expected.losses[0] - 0.3
    assert min(expected.norms) > 0.8


def test_fused_loss_is_the_loss(
    world2: World, reference: Reference, buckets: Path, tmp_path: Path
) -> None:
    fused = {**SEQUENCE, "cross_entropy_fusion": "native"}
    config = Case(ranks=2, small=fused, sections=BF16).config(buckets, tmp_path)
    assert world2.run(_uncompiled, config) == [0, 0]
    expected, found = reference(BF16), layouts.outcome(tmp_path)
    assert found.losses == pytest.approx(expected.losses, rel=LOSS_TOLERANCE["bf16"])
    assert found.norms == pytest.approx(expected.norms, rel=NORM_TOLERANCE["bf16"])


def _uncompiled(config: RunConfig) -> int:
    """The run with its compiled functions as they are written: compiling takes half a minute."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        return layouts.run(config)


@pytest.mark.parametrize("case", EXACT.values(), ids=EXACT)
def test_layout_equals_one_process_bit_for_bit(
    request: pytest.FixtureRequest,
    reference: Reference,
    world1: World,
    buckets: Path,
    tmp_path: Path,
    case: Case,
) -> None:
    expected = reference(case.sections)
    found = outcome_of(request, case, buckets, tmp_path)
    assert found.losses == expected.losses
    assert found.evaluations == expected.evaluations
    assert found.samples == expected.samples
    one, other = layouts.tensors(world1, expected.checkpoint(5), found.checkpoint(5))
    assert len(one) > 80  # weights and both moments
    assert layouts.differing(one, other) == []


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputed_dropout_is_the_same(
    world2: World, buckets: Path, tmp_path: Path, recompute: str
) -> None:
    plain, recomputed = (
        layouts.train(
            world2,
            config_of(
                buckets,
                tmp_path / name,
                stage(2, 3, parallel={**SEQUENCE, "recompute": name}),
                model={"dropout": 0.2},
            ),
        )
        for name in ("none", recompute)
    )
    assert recomputed.losses == plain.losses


@pytest.mark.parametrize(
    ("ranks", "parallels"),
    [
        (2, [{}, {"pipeline": 2}, {}]),
        (4, [OVERLAP, {**SEQUENCE, "pipeline": 2}, {**INTERLEAVED}]),
    ],
    ids=["dp2-pp2-dp2", "dp4-tp2pp2-pp2v2dp2"],
)
def test_stages_with_their_own_layout_and_batch(
    request: pytest.FixtureRequest,
    world1: World,
    buckets: Path,
    tmp_path: Path,
    ranks: int,
    parallels: list[dict[str, Any]],
) -> None:
    """The sampler does not notice: the same samples in the same order as in one process."""

    def config(name: str, parallels: list[dict[str, Any]]) -> RunConfig:
        mixtures = [{"easy": 1.0}, {"easy": 0.5, "hard": 0.5}, {"hard": 1.0}]
        batches = [(8, 2), (4, 1), (16, 2)]
        rows = [
            stage(
                layers,
                2,
                mixture=mixture,
                batch={"global_size": size, "micro_size": micro},
                parallel=parallel,
                transition=None if layers == 2 else {"optimizer": "copy"},
            )
            for layers, mixture, (size, micro), parallel in zip(
                (2, 4, 4), mixtures, batches, parallels, strict=True
            )
        ]
        rows[1]["tokens"], rows[2]["tokens"] = 3 * 4 * LENGTH, 2 * 16 * LENGTH
        return config_of(buckets, tmp_path / name, *rows)

    one = layouts.train(world1, config("one", [{}, {}, {}]))
    many = layouts.train(request.getfixturevalue(f"world{ranks}"), config("many", parallels))
    assert many.samples == one.samples
    # easy: 2 x 8, then half of 3 x 4; hard: the other half, then 2 x 16
    assert one.samples[-1] == {"easy": 22, "hard": 38}
    assert many.losses == pytest.approx(one.losses, rel=5e-7)
    layout = [record["parallel"] for record in many.of("stage")]
    assert [each["pipeline"] for each in layout] == [each.get("pipeline", 1) for each in parallels]
    assert [each["data"] * each["pipeline"] * each["tensor"] for each in layout] == [ranks] * 3


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("ranks", "parallel"),
    [(1, {}), (2, SEQUENCE), (2, INTERLEAVED), (4, {"tensor": 2, "pipeline": 2})],
    ids=["one", "tp2", "pp2-interleaved", "tp2-pp2"],
)
def test_the_plan_counts_the_parameters_there_are(
    request: pytest.FixtureRequest,
    buckets: Path,
    tmp_path: Path,
    ranks: int,
    parallel: dict[str, Any],
    style: str,
) -> None:
    model = {"style": style, "num_query_groups": 4}
    config = config_of(buckets, tmp_path, stage(4, 1, parallel=parallel), model=model)
    planned = make_plan(config, ranks).stages[0]
    counts = request.getfixturevalue(f"world{ranks}").run(_count, config)
    for pipeline_rank, held, _ in counts:
        assert held == planned.memory[pipeline_rank].parameters
    assert sum(owned for _, _, owned in counts) == planned.parameters.total


def _count(config: RunConfig) -> tuple[int, int, int]:
    """Pipeline rank, elements this rank holds, and those of which it is the first holder."""
    from megagrow.model.initialisation import sharded_tensors
    from megagrow.runtime import groups
    from tests.train import parts

    run = parts.open_run(config)
    engine, _ = parts.fresh(run)
    held = sum(parameter.numel() for parameter in parts.parameters(engine).values())
    owned = sum(
        tensor.data.numel()
        for chunk in engine.chunks
        for tensor in sharded_tensors(chunk)
        if not any(tensor.replica_id)
    )
    return groups.pipeline_rank(), held, owned


def test_the_plan_counts_the_flops_there_are(world1: World, buckets: Path, tmp_path: Path) -> None:
    config = config_of(buckets, tmp_path, stage(2, 2), stage(4, 3))
    plan = make_plan(config, 1)
    counted = world1.run(layouts.count_flops, config)[0]
    assert counted == plan.stages[0].flops_per_token.total * BATCH * LENGTH
    found = layouts.train(world1, config)
    each = [stage.flops_per_token.total * BATCH * LENGTH for stage in plan.stages]
    assert [record["flops"] for record in found.of("step")] == [
        each[0], 2 * each[0], *(2 * each[0] + count * each[1] for count in (1, 2, 3))
    ]  # fmt: skip
    assert found.of("run")[0]["total_flops"] == plan.flops

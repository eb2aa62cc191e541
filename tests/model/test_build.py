from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from megatron.core.utils import unwrap_model

from megagrow.config.schema import InitConfig, OptimizerConfig, ParallelConfig
from megagrow.errors import LayoutError
from megagrow.model.build import build_model, build_optimizer, wrap_ddp
from megagrow.model.transformer_config import p2p_options, transformer_config
from megagrow.runtime import device, groups
from tests.distributed import World
from tests.model.job import Job, batch, build, inputs, train
from tests.model.reference import GPT, Sizes, parameter_map

LAYOUTS = {
    "tp2": (2, ParallelConfig(tensor=2), None),
    "tp2_sp": (2, ParallelConfig(tensor=2, sequence_parallel=True), None),
    "pp2": (2, ParallelConfig(pipeline=2), None),
    "pp2_uneven": (2, ParallelConfig(pipeline=2), (1, 3)),
    "pp2_vp2": (2, ParallelConfig(pipeline=2, virtual_pipeline=2), None),
    "pp2_vp2_uneven": (2, ParallelConfig(pipeline=2, virtual_pipeline=2), (0, 2, 1, 1)),
    "dp2": (2, ParallelConfig(), None),
    "dp2_overlap": (2, ParallelConfig(overlap_grad_reduce=True, overlap_param_gather=True), None),
    "dp2_plain_optimizer": (2, ParallelConfig(distributed_optimizer=False), None),
    "pp4_vp2": (4, ParallelConfig(pipeline=4, virtual_pipeline=2), (0, 1, 1, 0, 1, 0, 1, 0)),
    "tp2_sp_pp2": (4, ParallelConfig(tensor=2, pipeline=2, sequence_parallel=True), None),
}


def sizes(job: Job) -> Sizes:
    shape = job.shape
    layer = shape.layers[0]
    return Sizes(
        style=shape.style,
        layers=shape.num_layers,
        hidden=shape.hidden_size,
        heads=layer.num_attention_heads,
        groups=layer.num_query_groups,
        channels=layer.kv_channels,
        ffn=layer.ffn_hidden_size,
        vocab=shape.padded_vocab_size,
        length=shape.seq_length,
        tied=shape.tie_embeddings,
        qkv_bias=job.qkv_bias,
        qk_norm=job.qk_norm,
        rotary_scaling=job.rotary_scaling,
        each=tuple(
            (each.num_attention_heads, each.num_query_groups, each.ffn_hidden_size)
            for each in shape.layers
        ),
    )


def loss_and_gradients(job: Job) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of each token and gradients of their mean, on this process alone."""
    (chunk,) = build(job)
    arguments, labels = inputs(batch(0))
    loss = chunk(*arguments, labels=labels)
    loss.mean().backward()
    gradients = {name: p.grad for name, p in unwrap_model(chunk).named_parameters()}
    groups.tear_down()
    return loss.detach(), gradients


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_loss_and_gradients_are_the_references(
    style: str, tied: bool, key_heads: int, alone: None
) -> None:
    # Weights this large reach the curved part of the activations.
    init = InitConfig(std=0.2)
    check_against_reference(Job(style=style, tied=tied, key_heads=key_heads, init=init))


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("key_heads", [4, 1])
def test_norms_of_queries_and_keys_are_the_references(
    style: str, key_heads: int, alone: None
) -> None:
    job = Job(style=style, key_heads=key_heads, qk_norm=True, init=InitConfig(std=0.2))
    check_against_reference(job)


def test_biases_of_queries_keys_and_values_are_the_references(alone: None) -> None:
    check_against_reference(Job(qkv_bias=True, qk_norm=True, init=InitConfig(std=0.2)))


def test_scaled_rotary_frequencies_are_the_references(alone: None) -> None:
    job = Job(rotary_scaling=8.0, init=InitConfig(std=0.3))
    check_against_reference(job)
    groups.tear_down()
    scaled, plain = (
        loss_and_gradients(job)[0],
        loss_and_gradients(replace(job, rotary_scaling=None))[0],
    )
    assert float((scaled - plain).abs().max()) > 1e-4  # so that the comparison could fail


def test_rotary_frequencies_scaled_down_are_refused() -> None:
    job = Job(rotary_scaling=0.5)
    with pytest.raises(LayoutError, match=r"rotary_scaling=0\.5"):
        transformer_config(job.shape, job.model, ParallelConfig(), "fp32")


def check_against_reference(job: Job) -> None:
    """Loss and gradients of a job are those of the plain model with its weights."""
    (chunk,) = build(job)
    for name, parameter in chunk.named_parameters():
        if parameter.dim() == 1:  # ones and zeros would hide a norm or a bias left out
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        assert parameter.isfinite().all(), name
    reference = GPT(sizes(job))
    mine, theirs = dict(reference.named_parameters()), dict(chunk.named_parameters())
    names = parameter_map(sizes(job))
    assert (set(names), set(names.values())) == (set(mine), set(theirs))
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(theirs[names[name]])
    arguments, labels = inputs(batch(0))
    loss = chunk(*arguments, labels=labels)
    expected = reference(arguments[0], labels)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.mean().backward()
    expected.mean().backward()
    for name, parameter in mine.items():
        torch.testing.assert_close(
            theirs[names[name]].grad, parameter.grad, rtol=1e-5, atol=1e-5, msg=name
        )


@pytest.fixture(scope="module")
def one_process() -> dict[str, list[tuple[float, float]]]:
    """Losses and norms of one process, filled as they are needed."""
    return {}


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_training_is_the_same_in_every_layout(
    name: str,
    style: str,
    alone: None,
    one_process: dict[str, list[tuple[float, float]]],
    request: pytest.FixtureRequest,
) -> None:
    check_layout(name, Job(style=style), one_process, request)


def check_layout(
    name: str,
    job: Job,
    one_process: dict[str, list[tuple[float, float]]],
    request: pytest.FixtureRequest,
) -> None:
    """Losses and norms of a job in a layout are those of one process, kept by style."""
    size, parallel, layout = LAYOUTS[name]
    world: World = request.getfixturevalue(f"world{size}")
    if job.style not in one_process:
        one_process[job.style] = train(job)
    expected = one_process[job.style]
    assert expected[2][0] < expected[0][0]
    ranks = world.run(train, replace(job, parallel=parallel, layout=layout))
    for step, (loss, norm) in enumerate(expected):
        losses = [rank[step][0] for rank in ranks if rank[step][0] != 0.0]
        assert losses == pytest.approx([loss] * len(losses), rel=1e-5), step
        assert len(losses) == size // parallel.pipeline
        assert [rank[step][1] for rank in ranks] == pytest.approx([norm] * size, rel=1e-4), step


@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["tp2", "tp2_sp"])
def test_norms_and_biases_of_heads_train_the_same_over_tensor_parallel_ranks(
    name: str, style: str, alone: None, world2: World
) -> None:
    job = Job(style=style, layers=2, qk_norm=True, qkv_bias=True, rotary_scaling=8.0)
    expected = train(job)
    parallel = LAYOUTS[name][1]
    for rank in world2.run(train, replace(job, parallel=parallel)):
        for found, wanted in zip(rank, expected, strict=True):
            assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_bf16_is_close_and_in_its_dtype(style: str, alone: None) -> None:
    exact = [loss for loss, _ in train(Job(style=style))]
    groups.tear_down()
    job = Job(style=style, precision="bf16")
    rounded = [loss for loss, _ in train(job)]
    groups.tear_down()
    assert rounded == pytest.approx(exact, rel=1e-2)
    assert rounded != exact
    (chunk,) = build(job)
    assert {parameter.dtype for parameter in chunk.parameters()} == {torch.bfloat16}
    arguments, labels = inputs(batch(0))
    assert chunk(*arguments, labels=labels).dtype == torch.float32


def test_bf16_over_two_ranks(world2: World, alone: None) -> None:
    expected = [loss for loss, _ in train(Job(precision="bf16"))]
    for parallel in (ParallelConfig(tensor=2, sequence_parallel=True), ParallelConfig()):
        ranks = world2.run(train, Job(precision="bf16", parallel=parallel))
        assert [loss for loss, _ in ranks[0]] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputation_changes_nothing(recompute: str, dropout: float, alone: None) -> None:
    job = Job(dropout=dropout)
    loss, gradients = loss_and_gradients(job)
    again = replace(job, parallel=ParallelConfig(recompute=recompute))  # type: ignore[arg-type]
    same_loss, same_gradients = loss_and_gradients(again)
    assert torch.equal(loss, same_loss)
    assert gradients.keys() == same_gradients.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, same_gradients[name]), name


def test_dropout_is_on_in_training_only(alone: None) -> None:
    (chunk,) = build(Job(dropout=0.2))
    arguments, labels = inputs(batch(0))
    first, second = (chunk(*arguments, labels=labels) for _ in range(2))
    assert not torch.equal(first, second)
    chunk.eval()
    first, second = (chunk(*arguments, labels=labels) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("distributed", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_optimizer_holds_each_parameter_once_and_moves_it(
    distributed: bool, precision: Any, alone: None
) -> None:
    parallel = ParallelConfig(distributed_optimizer=distributed)
    job = Job(style="gpt2", precision=precision, parallel=parallel)
    wrapped = wrap_ddp(build(job), parallel)
    settings = OptimizerConfig(weight_decay=0.3)
    optimizer = build_optimizer(wrapped, settings, parallel, precision, 1e-2)
    counts = {0.0: 0, 0.3: 0}
    for group in optimizer.param_groups:
        assert group["lr"] == 1e-2
        counts[group["weight_decay"]] += sum(p.numel() for p in group["params"])
    parameters = dict(unwrap_model(wrapped[0]).named_parameters())
    vectors = sum(p.numel() for p in parameters.values() if p.dim() == 1)
    assert counts == {0.0: vectors, 0.3: sum(p.numel() for p in parameters.values()) - vectors}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    arguments, labels = inputs(batch(0))
    wrapped[0].zero_grad_buffer()
    wrapped[0](*arguments, labels=labels).mean().backward()
    wrapped[0].finish_grad_sync()
    assert optimizer.step()[0]
    still = [name for name, p in parameters.items() if torch.equal(p, before[name])]
    assert not still


def test_unequal_layouts_are_refused(alone: None) -> None:
    job = Job()

    def attempt(
        parallel: ParallelConfig, layout: tuple[int, ...] | None = None, **changes: Any
    ) -> None:
        job = replace(Job(), **changes)
        transformer_config(job.shape, job.model, parallel, "fp32", layout)

    for message, arguments, changes in (
        ("num_attention_heads=4 is not divisible by tensor=3", (ParallelConfig(tensor=3),), {}),
        ("num_query_groups=2 is not divisible by tensor=4", (ParallelConfig(tensor=4),), {}),
        ("sequence_parallel needs", (ParallelConfig(sequence_parallel=True),), {}),
        ("4 layers do not divide into 3", (ParallelConfig(pipeline=3),), {}),
        ("has 1 chunks", (ParallelConfig(pipeline=2), (4,)), {}),
        ("holds 5 layers; the model has 4", (ParallelConfig(pipeline=2), (2, 3)), {}),
    ):
        with pytest.raises(LayoutError, match=message):
            attempt(*arguments, **changes)
    layers = (job.shape.layers[0], replace(job.shape.layers[0], ffn_hidden_size=64))
    with pytest.raises(LayoutError, match="different shapes"):
        transformer_config(
            replace(job.shape, layers=layers), job.model, ParallelConfig(), "fp32", None
        )


def test_settings_of_the_layout_reach_megatron(alone: None) -> None:
    parallel = ParallelConfig(grad_reduce_in_fp32=False, cross_entropy_fusion="native")
    job = Job(precision="bf16", parallel=parallel)
    (wrapped,) = wrap_ddp(build(job), parallel)
    assert wrapped.config.cross_entropy_loss_fusion
    assert wrapped.config.cross_entropy_fusion_impl == "native"
    assert not wrapped.config.deterministic_mode
    gradients = {parameter.main_grad.dtype for parameter in wrapped.parameters()}
    assert gradients == {torch.bfloat16}
    (plain,) = wrap_ddp(build_again(job, ParallelConfig()), ParallelConfig())
    assert {parameter.main_grad.dtype for parameter in plain.parameters()} == {torch.float32}
    assert not plain.config.cross_entropy_loss_fusion


def build_again(job: Job, parallel: ParallelConfig) -> list[Any]:
    groups.tear_down()
    return build(replace(job, parallel=parallel))


def test_small_buckets_are_many(world2: World) -> None:
    parallel = ParallelConfig(overlap_grad_reduce=True)
    (few, _), (many, _) = (
        world2.run(_buckets, replace(parallel, ddp_bucket_size=size)) for size in (None, 2000)
    )
    assert few == 1
    assert many > 10


def _buckets(parallel: ParallelConfig) -> int:
    (wrapped,) = wrap_ddp(build(Job(parallel=parallel)), parallel)
    return sum(len(group.buckets) for group in wrapped.bucket_groups)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gradient_accumulation_fusion": True}, "install apex"),
        ({"cross_entropy_fusion": "te"}, "Transformer Engine: install it, or choose"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels may be there")
def test_fusions_whose_kernel_is_not_there_are_refused(keys: dict[str, Any], message: str) -> None:
    job = Job(parallel=ParallelConfig(**keys))
    with pytest.raises(LayoutError, match=message):
        transformer_config(job.shape, job.model, job.parallel, "bf16")


def test_deterministic_kernels_give_the_same_training(world2: World) -> None:
    job = Job(parallel=ParallelConfig(tensor=2))
    (plain, _), (chosen, _) = world2.run(train, job), world2.run(_deterministic, job)
    assert chosen[0]
    assert [loss for loss, _ in chosen[1]] == pytest.approx([loss for loss, _ in plain], rel=1e-6)


def _deterministic(job: Job) -> tuple[bool, list[tuple[float, float]]]:
    device.make_deterministic()
    try:
        config = transformer_config(job.shape, job.model, job.parallel, "fp32")
        return config.deterministic_mode, train(job)
    finally:
        torch.use_deterministic_algorithms(False)


def test_only_the_interleaved_schedule_sends_one_by_one() -> None:
    for parallel in (ParallelConfig(), ParallelConfig(pipeline=2), ParallelConfig(pipeline=4)):
        options = p2p_options(parallel)
        assert options == {"batch_p2p_comm": True, "overlap_p2p_comm": False}
    options = p2p_options(ParallelConfig(pipeline=2, virtual_pipeline=2))
    # Overlapped where there are streams.
    assert options == {"batch_p2p_comm": False, "overlap_p2p_comm": device.is_cuda()}


def test_no_deprecation_noise(alone: None, caplog: pytest.LogCaptureFixture) -> None:
    groups.set_up()
    job = Job()
    wrap_ddp(build_model(job.shape, job.model, ParallelConfig(), "fp32"), ParallelConfig())
    assert not [record for record in caplog.records if record.levelname == "WARNING"]

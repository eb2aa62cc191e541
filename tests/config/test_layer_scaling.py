"""Every way `model.layer_scaling` can be wrong, and that what is right is read."""

from __future__ import annotations

import pytest

from megagrow.config import RunConfig
from megagrow.config.schema import LayerScalingConfig, LayerTable
from megagrow.errors import ConfigError
from tests.config.conftest import Load

LINE = "variant: vanilla, ffn_multipliers: [1, 4]"

# layer_scaling, further keys of the model, the key at fault below `model`, the message.
FAULTS = [
    # Points.
    ("variant: vanila", "", "layer_scaling.variant", "did you mean `vanilla`?"),
    (f"{LINE}, ffn_multiple: 0", "", "layer_scaling.ffn_multiple", "must be at least 1, not 0"),
    (
        f"{LINE}, queries_per_group: 0", "num_query_groups: null",
        "layer_scaling.queries_per_group", "must be at least 1, not 0",
    ),
    (
        "variant: vanilla, qkv_multipliers: [1, 2], head_multiple: -1", "",
        "layer_scaling.head_multiple", "must be at least 1, not -1",
    ),
    (
        "variant: vanilla", "", "layer_scaling",
        "varies nothing; set ffn_multipliers, qkv_multipliers or both",
    ),
    (
        "variant: framed, ffn_multipliers: [1, 2, 3]", "", "layer_scaling.ffn_multipliers",
        "framed takes 2 points, of the first and last layer, not 3",
    ),
    (
        "variant: crown, qkv_multipliers: [1, 2]", "", "layer_scaling.qkv_multipliers",
        "crown takes 3 points, of the first, middle and last layer, not 2",
    ),
    (
        "variant: vanilla, ffn_multipliers: [0, 4]", "", "layer_scaling.ffn_multipliers",
        "multipliers are above 0 and at most 64, not [0.0, 4.0]",
    ),
    (
        "variant: reverse, qkv_multipliers: [65, 4]", "", "layer_scaling.qkv_multipliers",
        "multipliers are above 0 and at most 64, not [65.0, 4.0]",
    ),
    (
        "variant: vanilla, ffn_multipliers: [4, 1]", "", "layer_scaling.ffn_multipliers",
        "vanilla goes up from layer to layer; turn them round, or set variant to reverse",
    ),
    (
        "variant: framed, qkv_multipliers: [1, 0.5]", "", "layer_scaling.qkv_multipliers",
        "framed goes up from layer to layer; turn them round, or set variant to reverse",
    ),
    (
        "variant: reverse, ffn_multipliers: [1, 4]", "", "layer_scaling.ffn_multipliers",
        "reverse goes down from layer to layer; turn them round, or set variant to vanilla",
    ),
    (
        "variant: crown, ffn_multipliers: [1, 2, 3]", "", "layer_scaling.ffn_multipliers",
        "the middle of a crown is its highest point; make it the largest of the three",
    ),
    (
        "variant: crown, ffn_multipliers: [3, 2, 1]", "", "layer_scaling.ffn_multipliers",
        "the middle of a crown is its highest point; make it the largest of the three",
    ),
    # Other sizes of the model.
    (
        LINE, "ffn_hidden_size: 128", "ffn_hidden_size",
        "follows from layer_scaling.ffn_multipliers; remove either",
    ),
    (
        "variant: vanilla, qkv_multipliers: [1, 2]", "kv_channels: 32", "num_attention_heads",
        "it is the heads of multiplier 1: hidden_size 64 / kv_channels 32 = 2, not 4",
    ),
    (
        "variant: vanilla, qkv_multipliers: [1, 2]", "kv_channels: 48", "kv_channels",
        "hidden_size 64 is heads of 48 at multiplier 1, and not divisible; nearest: 32",
    ),
    (
        "variant: vanilla, qkv_multipliers: [1, 2], ffn_multiple: 64", "",
        "layer_scaling.ffn_multiple", "is of ffn_multipliers; set these, or remove it",
    ),
    (
        f"{LINE}, queries_per_group: 2", "", "num_query_groups",
        "follows from layer_scaling.queries_per_group; remove either",
    ),
    (
        "variant: vanilla, qkv_multipliers: [1, 2], head_multiple: 3", "",
        "layer_scaling.head_multiple",
        "heads in multiples of 3 cannot always be shared out over key/value heads; nearest: 2",
    ),
    (
        "variant: vanilla, qkv_multipliers: [1, 2], head_multiple: 4, queries_per_group: 3",
        "num_query_groups: null", "layer_scaling.head_multiple",
        "heads in multiples of 4 cannot always be shared out over key/value heads; nearest: 3",
    ),
    (
        f"{LINE}, head_multiple: 2", "", "layer_scaling.head_multiple",
        "is of qkv_multipliers; set these, or remove it",
    ),
    (
        f"{LINE}, queries_per_group: 3", "num_query_groups: null",
        "layer_scaling.queries_per_group", "4 heads cannot be shared out 3 at a time",
    ),
    # Frames.
    (
        f"{LINE}, frame_multipliers: [4, 1]", "", "layer_scaling.frame_multipliers",
        "there is no frame; set framed to true, or remove it",
    ),
    (
        "variant: framed, ffn_multipliers: [1, 4], framed: false, frame_multipliers: [4, 1]", "",
        "layer_scaling.frame_multipliers", "there is no frame; set framed to true, or remove it",
    ),
    (
        "variant: framed, ffn_multipliers: [1, 4], frame_multipliers: [4]", "",
        "layer_scaling.frame_multipliers", "takes two multipliers, of FFN width and of heads, such",
    ),
    (
        "variant: framed, ffn_multipliers: [1, 4], frame_multipliers: [4, 0]", "",
        "layer_scaling.frame_multipliers", "multipliers are above 0 and at most 64, not [4.0, 0.0]",
    ),
    (
        "variant: framed, ffn_multipliers: [1, 4], frame_multipliers: [4]", "",
        "layer_scaling.frame_multipliers", "takes two multipliers, of FFN width and of heads, such",
    ),
    # Tables.
    (
        f"{LINE}, table: {{ffn_hidden_size: [1, 2]}}", "", "layer_scaling.table",
        "is not read by vanilla; set variant to table",
    ),
    ("variant: table", "", "layer_scaling.table", "is missing; give the sizes of every layer"),
    (
        "variant: table, table: {}", "", "layer_scaling.table",
        "is missing; give the sizes of every layer",
    ),
    *(
        (
            f"variant: table, table: {{ffn_hidden_size: [1, 2]}}, {key}: {value}", "",
            f"layer_scaling.{key}", "is of the other variants; remove it, or the table",
        )
        for key, value in (
            ("ffn_multipliers", "[1, 2]"), ("qkv_multipliers", "[1, 2]"), ("framed", "true"),
            ("frame_multipliers", "[1, 2]"), ("rounding", "openelm"), ("ffn_multiple", "64"),
            ("head_multiple", "2"), ("queries_per_group", "2"),
        )
    ),
    (
        "variant: table, table: {ffn_hidden_size: [1, 2, 3]}", "",
        "layer_scaling.table.ffn_hidden_size", "has 3 entries for 2 layers; give one for each",
    ),
    (
        "variant: table, table: {num_attention_heads: [4, 0]}", "",
        "layer_scaling.table.num_attention_heads", "sizes are at least 1, not 0",
    ),
    (
        "variant: table, table: {num_attention_heads: [4, 7]}", "", "layer_scaling.table",
        "layer 1: 7 heads cannot share 2 key/value heads; nearest: 6 heads",
    ),
    (
        "variant: table, table: {num_query_groups: [3, 4]}", "", "layer_scaling.table",
        "layer 0: 4 heads cannot share 3 key/value heads; nearest: 3 heads",
    ),
]  # fmt: skip


@pytest.fixture
def base(base: str) -> str:
    """One stage of two layers on one process, so that depth and layout ask for nothing."""
    text = base.replace("  pipeline: 2", "  pipeline: 1")
    return text[: text.index("  - name: large")]


def with_scaling(base: str, scaling: str, more: str = "") -> str:
    """`base` with a layer-wise scaling; `more` is a key of the model, or replaces one."""
    key = more.partition(":")[0]
    lines = [line for line in base.splitlines() if not key or not line.startswith(f"  {key}:")]
    added = [f"  layer_scaling: {{{scaling}}}", *([f"  {more}"] if more else [])]
    return "\n".join([lines[0], *added, *lines[1:]]) + "\n"


@pytest.mark.parametrize(("scaling", "more", "key", "message"), FAULTS)
def test_fault(base: str, load_text: Load, scaling: str, more: str, key: str, message: str) -> None:
    text = with_scaling(base, scaling, more)
    first = key.split(".")[0]
    line = next(n for n, row in enumerate(text.splitlines(), 1) if row.startswith(f"  {first}:"))
    with pytest.raises(ConfigError) as error:
        load_text(text)
    assert str(error.value).startswith(f"run.yaml:{line}: model.{key}")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "scaling",
    [
        LINE,
        "variant: vanilla, ffn_multipliers: [2, 2]",  # equal points are a baseline
        "variant: vanilla, ffn_multipliers: [1, 2], framed: true, frame_multipliers: [4, 1]",
        "variant: framed, ffn_multipliers: [1, 2], framed: false",
        "variant: reverse, ffn_multipliers: [2, 2], frame_multipliers: [4, 1]",
        "variant: crown, qkv_multipliers: [1, 2, 0.5], head_multiple: 4",
        "variant: crown, ffn_multipliers: [2, 2, 2]",
        "variant: table, table: {ffn_hidden_size: [7, 64]}",
        "variant: table, table: {num_attention_heads: [6, 2], num_query_groups: [3, 2]}",
    ],
)
def test_what_is_right_is_read(base: str, load_text: Load, scaling: str) -> None:
    config: RunConfig = load_text(with_scaling(base, scaling))
    assert config.model.layer_scaling is not None
    assert config.stages[0].model.layer_scaling == config.model.layer_scaling


def test_values_and_defaults(base: str, load_text: Load) -> None:
    found = load_text(with_scaling(base, LINE)).model.layer_scaling
    assert found == LayerScalingConfig(variant="vanilla", ffn_multipliers=(1.0, 4.0))
    assert (found.rounding, found.ffn_multiple, found.framed) == ("paper", 256, None)
    table = load_text(with_scaling(base, "variant: table, table: {num_query_groups: [4, 1]}"))
    assert table.model.layer_scaling is not None
    assert table.model.layer_scaling.table == LayerTable(num_query_groups=(4, 1))


def test_a_table_is_held_against_the_depth_of_each_stage(base: str, load_text: Load) -> None:
    text = with_scaling(base, "variant: table, table: {ffn_hidden_size: [8, 16]}")
    text += "  - {name: deep, layers: 4, tokens: 1K, mixture: {easy: 1}}\n"
    with pytest.raises(ConfigError, match=r"for stages.1.*has 2 entries for 4 layers"):
        load_text(text)
    own = "model: {layer_scaling: {variant: table, table: {ffn_hidden_size: [8, 16, 8, 16]}}}"
    transition = "transition: {operator: random, width: {operator: zero}}"
    config = load_text(text.replace("{easy: 1}}", f"{{easy: 1}}, {own}, {transition}}}"))
    scaling = config.stages[1].model.layer_scaling
    assert scaling is not None
    assert scaling.table == LayerTable(ffn_hidden_size=(8, 16, 8, 16))
    assert config.stages[0].model.layer_scaling == config.model.layer_scaling


@pytest.mark.parametrize(
    "scaling",
    [
        f"{LINE}, queries_per_group: 2",  # heads do not vary, and 4 of them are shared out by 2
        "variant: vanilla, qkv_multipliers: [1, 2], head_multiple: 6, queries_per_group: 3",
    ],
)
def test_heads_that_can_be_shared_out_are(base: str, load_text: Load, scaling: str) -> None:
    assert load_text(with_scaling(base, scaling, "num_query_groups: null"))

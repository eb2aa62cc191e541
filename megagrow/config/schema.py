"""What one run is: the typed, frozen form of its YAML file.

Field names are the YAML's keys. Every default is here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from megagrow.config.quantity import parse_bytes, parse_duration, parse_tokens

Tokens = Annotated[int, parse_tokens]
"""A number of tokens; in YAML an integer or text such as `20M`, `2.5B`."""

Bytes = Annotated[int, parse_bytes]
"""A number of bytes; in YAML an integer or text such as `75GB`, `256MiB`."""

Seconds = Annotated[float, parse_duration]
"""A wall-clock duration; in YAML seconds or text such as `3h50m`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InitConfig:
    """How new weights are drawn."""

    scheme: Literal["megatron", "gstack"] = "megatron"
    """`megatron`: N(0, std), residual outputs scaled by 1/sqrt(2 layers). `gstack`: the G_stack
    paper's (arXiv 2405.15319, authors' code): variance 2/(5 hidden), and for the MLP output a
    standard deviation of 1/(sqrt(in) layers)."""

    std: float = 0.02
    """Standard deviation of the `megatron` scheme; `gstack` derives its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTable:
    """The sizes of every layer, from input to output."""

    num_attention_heads: tuple[int, ...] | None = None
    """Query heads of each layer; unset: the model's in all."""

    num_query_groups: tuple[int, ...] | None = None
    """Key/value heads of each layer; unset: the model's in all, or as many as query heads."""

    ffn_hidden_size: tuple[int, ...] | None = None
    """Inner width of each layer's MLP; unset: the model's in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerScalingConfig:
    """Heads and FFN widths that vary by layer; see docs/layer_scaling.md.

    A size is hidden_size times the layer's multiplier (for heads, over the head dimension),
    rounded. arXiv 2509.06518; OpenELM, arXiv 2404.14619.
    """

    variant: Literal["vanilla", "framed", "reverse", "crown", "table"]
    """How multipliers go from layer to layer: `vanilla` up a line; `framed` likewise, but the first
    and last layers have the largest; `reverse` down a line, framed; `crown` up to the middle and
    down again, framed; `table`: every layer's sizes are given."""

    ffn_multipliers: tuple[float, ...] | None = None
    """Of FFN widths: at the first and last layer; of a crown at the first, middle and last. Unset:
    ffn_hidden_size in all layers."""

    qkv_multipliers: tuple[float, ...] | None = None
    """Of query heads, likewise. Unset: num_attention_heads in all layers."""

    framed: bool | None = None
    """Whether the first and last layers take `frame_multipliers`; unset: as the variant says."""

    frame_multipliers: tuple[float, ...] | None = None
    """Multipliers of FFN width and heads of the frame; unset: the largest of the points."""

    rounding: Literal["paper", "openelm"] = "paper"
    """Rounding to a multiple goes up where it would lose 10% or more (`paper`), or more than 10%
    (`openelm`)."""

    ffn_multiple: int = 256
    """FFN widths are multiples of this."""

    head_multiple: int | None = None
    """Query heads are multiples of this; unset: of queries_per_group, or of num_query_groups."""

    queries_per_group: int | None = None
    """Query heads that share a key/value head, in every layer; unset: every layer has the model's
    num_query_groups, or as many as query heads."""

    table: LayerTable | None = None
    """Of the variant `table`: the sizes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The shape of one model, all but its depth, which belongs to a stage."""

    style: Literal["gpt2", "llama"] = "llama"
    """Family. `gpt2`: LayerNorm, GELU, biases, learned positions. `llama`: RMSNorm, SwiGLU, RoPE,
    no biases."""

    hidden_size: int
    """Width of the residual stream."""

    num_attention_heads: int
    """Query heads per layer."""

    num_query_groups: int | None = None
    """Key/value heads per layer (grouped-query attention); unset: as many as query heads."""

    kv_channels: int | None = None
    """Dimension of one head; unset: hidden_size / num_attention_heads."""

    ffn_hidden_size: int | None = None
    """Inner width of the MLP; unset: 4 x hidden (gpt2), 8/3 x hidden rounded up to 64 (llama)."""

    layer_scaling: LayerScalingConfig | None = None
    """Heads and FFN widths that vary by layer; unset: all layers are alike."""

    vocab_size: int
    """Size of the tokenizer's vocabulary, special tokens included, before padding."""

    vocab_padding: int = 128
    """The embedding has this multiple of rows, whatever the tensor-parallel size."""

    seq_length: int
    """Tokens in one training sequence."""

    tie_embeddings: bool | None = None
    """Whether input embedding and output layer share weights; unset: gpt2 yes, llama no."""

    norm_epsilon: float = 1e-5
    """Epsilon of the norms."""

    rotary_base: int = 10_000
    """Base period of the rotary position embedding (llama style)."""

    rotary_scaling: float | None = None
    """Factor that stretches the slow rotary frequencies as in Llama 3.1: those with a period over
    8192 tokens whole, those under 2048 not at all; unset: none (llama style)."""

    qkv_bias: bool = False
    """Biases on queries, keys and values, as in Qwen2; a gpt2 has them with all others."""

    qk_norm: bool = False
    """Norms on queries and keys, one gain per head dimension, before the rotation, as in Qwen3."""

    dropout: float = 0.0
    """Dropout probability of hidden states and attention weights."""

    init: InitConfig = field(default_factory=InitConfig)
    """How new weights are drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where the tokens are."""

    path: str = "."
    """Folder the bucket prefixes are relative to; a manifest.json in it is checked."""

    buckets: dict[str, tuple[str, ...]]
    """Difficulty buckets: name -> prefixes of `.bin`/`.idx` pairs."""

    validation_fraction: float = 0.01
    """Share of every bucket's documents held out for validation, chosen by the seed."""

    cache: str | None = None
    """Folder for megatron-core's index files; unset: `<data path>/index_cache`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """How one stage's model is spread over processes; data parallel takes what is left."""

    tensor: int = 1
    """Tensor model parallel size."""

    pipeline: int = 1
    """Pipeline model parallel size."""

    virtual_pipeline: int = 1
    """Model chunks per pipeline rank; above 1 the schedule is interleaved 1F1B."""

    balance: Literal["flops", "times", "even"] = "flops"
    """What is made equal between pipeline chunks: the FLOPs of what they hold, its measured times
    (`layer_times`), or just the number of layers."""

    layer_times: str | None = None
    """File of `tools/time_layers.py` that `balance: times` reads."""

    memory_limit: Bytes | None = None
    """Estimated bytes that no rank may exceed, such as `75GB`; the split gives way to it. Leave a
    tenth of the device free. Unset: no limit."""

    layers_per_chunk: tuple[int, ...] | None = None
    """Layers of each of the pipeline x virtual_pipeline chunks, from input to output, instead of
    the balancer's; pipeline rank r holds chunks r, r + pipeline, ... Unset: balanced."""

    sequence_parallel: bool = False
    """Split norms and dropout along the sequence over the tensor-parallel ranks."""

    distributed_optimizer: bool = True
    """Shard master weights and moments over the data-parallel ranks (ZeRO-1)."""

    recompute: Literal["none", "selective", "full"] = "none"
    """Activation recomputation: none, core attention only, or whole layers."""

    overlap_grad_reduce: bool = False
    """Overlap the gradient reduction with the backward pass."""

    overlap_param_gather: bool = False
    """Overlap the parameter all-gather with the forward pass (distributed optimizer)."""

    grad_reduce_in_fp32: bool = True
    """Keep and reduce gradients in fp32; false: in the precision of the weights."""

    ddp_bucket_size: int | None = None
    """Parameters that are reduced together where the reduction overlaps; unset: megatron-core's
    choice, 40 million or a million per replica, whichever is more."""

    gradient_accumulation_fusion: bool | None = None
    """Add weight gradients to the main gradients inside the matrix product, with Apex's kernel;
    unset: where that is installed and there is a GPU."""

    cross_entropy_fusion: Literal["none", "native", "te"] = "none"
    """Fused loss: megatron-core's (`native`, compiled by torch; rounds gradients to bf16) or
    Transformer Engine's (`te`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """How many sequences one optimizer step takes."""

    global_size: int
    """Sequences per optimizer step, over all processes."""

    micro_size: int
    """Sequences per forward pass of one model replica; the rest is gradient accumulation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW."""

    beta1: float = 0.9
    """Decay of the first moment."""

    beta2: float = 0.95
    """Decay of the second moment."""

    epsilon: float = 1e-8
    """Added to the root of the second moment."""

    weight_decay: float = 0.1
    """Decoupled weight decay of matrices and embeddings; norms and biases have none."""

    clip_grad: float = 1.0
    """Global gradient norm above which gradients are scaled down; 0: never."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRateConfig:
    """The learning rate as a function of the tokens since the schedule last restarted."""

    peak: float
    """Learning rate after warmup."""

    minimum: float | None = None
    """Learning rate at the end of the decay; unset: a tenth of the peak."""

    warmup: Tokens = 0
    """Tokens of linear warmup from 0."""

    decay: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """Shape after warmup; `wsd` stays at the peak, then falls linearly over `decay_tokens`."""

    decay_tokens: Tokens = 0
    """Length of the final fall of `wsd`."""

    horizon: Tokens | None = None
    """Tokens at which the minimum is reached; unset: where the schedule next restarts or ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WidthConfig:
    """How tensors get wider; see docs/operators.md.

    For a stage whose `model` has other widths than the one before, or whose layer-wise scaling
    gives layers other ones in its depth.
    """

    operator: Literal["split", "zero", "random", "hyperclone", "double", "rms_preserving"]
    """What new channels begin as."""

    alpha: float | None = None
    """Of `split`: share of a weight that the old channel keeps of two copies; unset: 2/3."""

    scale_norms: bool | None = None
    """Of `split`: whether RMSNorm's gains shrink with the width, as in the paper; unset: yes."""

    snr_db: float | None = None
    """Of `hyperclone`: signal-to-noise ratio of the noise that tells copies apart; unset: none."""

    fan_out: Literal["copy", "random", "zero"] | None = None
    """Of `rms_preserving`: what new outputs begin as; unset: copies."""

    fan_in: Literal["copy", "random", "zero"] | None = None
    """Of `rms_preserving`: what new inputs begin as; unset: copies."""

    shrink: Literal["first"] | None = None
    """What stays of a layer that gets narrower, as layer-wise scaling can ask for in a new depth:
    its first heads and FFN channels. Unset: that is refused."""

    mask_tokens: Tokens | None = None
    """Of `random` (llama style): tokens over which a mask on new channels rises from 0 to 1, first
    those inside MLPs, then those of the residual stream, then heads; unset: no mask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LesaConfig:
    """How the operator `lesa` predicts."""

    preset: Literal["notebook", "paper"] = "notebook"
    """Which of the two published sets of hyperparameters."""

    epochs: int | None = None
    """Passes over the rows of all triples of layers; unset: the preset's."""

    first_pair: int | None = None
    """Lower layer (from 0) of the first pair of neighbours that gets a layer in between; the pairs
    above it follow. Unset: the last pairs."""

    norms: Literal["nearest", "first"] = "nearest"
    """Where new layers take their norms from: the layer below, or layer 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedConfig:
    """How the operator `learned` (LiGO) is trained, on batches that the stage then begins with."""

    preset: Literal["prts", "ligo"] = "prts"
    """Which of the two public sets of first values and learning rates."""

    steps: int | None = None
    """Optimizer steps; unset: 100."""

    learning_rate: float | None = None
    """Learning rate of Adam; unset: the preset's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransitionConfig:
    """What happens at the start of a stage, between it and the one before."""

    operator: Literal[
        "none",
        "stack",
        "append",
        "interleave",
        "pattern",
        "overlap",
        "expand",
        "middle",
        "random",
        "first",
        "lesa",
        "learned",
    ]
    """Which new layer comes from which old ones; see docs/operators.md."""

    pattern: str | None = None
    """Of the operator `pattern`: old layers from 1, such as `12-345x7-6`."""

    insert: Literal["top", "middle", "bottom"] = "top"
    """Of the operator `random`: where its new layers go."""

    positions: tuple[int, ...] | None = None
    """Of the operator `random`: the places (from 0) of its new layers in the new model, instead of
    `insert`."""

    lesa: LesaConfig | None = None
    """Of the operator `lesa`: how it predicts; unset: as in the authors' notebook."""

    learned: LearnedConfig | None = None
    """Of the operator `learned`, for depth and width: how it is trained; unset: as in G_stack's
    code."""

    width: WidthConfig | None = None
    """How tensors get wider, after the depth has changed."""

    new_output: Literal["copy", "zero", "mask"] = "copy"
    """What a new layer adds to the residual stream at first: what the layer it copies does, nothing
    (its output projections are zero), or nothing because a mask, which rises to 1 over
    `mask_tokens`, is 0."""

    mask_tokens: Tokens = 0
    """Tokens over which the mask of `new_output: mask` rises from 0 to 1."""

    noise: float = 0.0
    """Share a of noise mixed into every matrix and embedding: (1 - a) W + a e, with e as the
    G_stack paper draws it."""

    optimizer: Literal["reset", "copy", "keep_old_zero_new", "scale"]
    """Moments after growth: zero with a new step count; copied along with the weights; copied for
    the layers that live on and zero for new ones; or copied and multiplied by `moment_scale`."""

    moment_scale: tuple[float, ...] | None = None
    """Of `optimizer: scale`: factors of the first and second moments, such as `[0.5, 0.25]`."""

    learning_rate: Literal["restart", "continue", "rewind", "rewarm_new"]
    """Whether the schedule begins again, warmup included; goes on; jumps back to `rewind_to`; or
    goes on for old weights while new layers get a higher rate (`rewarm_factor`)."""

    rewind_to: Tokens | None = None
    """Of `learning_rate: rewind`: where in its schedule the stage begins; unset: at the peak, where
    the warmup ends."""

    rewarm_factor: float = 1.3
    """Of `rewarm_new`: the rate of new layers over that of old ones, once it is reached."""

    rewarm_tokens: Tokens = 0
    """Of `rewarm_new`: tokens over which the new layers' factor rises from 1."""

    through: Literal["memory", "checkpoint"] = "memory"
    """How the state travels: straight between processes, or through a checkpoint in
    `checkpoint.growth_scratch`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """One row of the stage table.

    `model`, `parallel`, `batch` and `learning_rate` are the run's, with the stage's own keys in
    place.
    """

    name: str
    """Unique name, used in metrics and reports."""

    layers: int
    """Transformer layers of the model in this stage."""

    tokens: Tokens
    """Tokens trained on in this stage; rounded up to whole optimizer steps. 0 in a first stage that
    is just the model of `initialise_from`, to grow at once."""

    mixture: dict[str, float]
    """Share of each bucket at the start of the stage; sums to 1."""

    mixture_end: dict[str, float] | None = None
    """Shares at the end of the stage, reached linearly; unset: the mixture stays as it is."""

    transition: TransitionConfig | None = None
    """How the stage begins; the first stage has none."""

    trainable: Literal["all", "new", "new_and_head"] = "all"
    """What is trained: everything; only the layers that the last growth added; or these, the final
    norm and the output layer. The rest is frozen: no gradients, no optimizer state."""

    model: ModelConfig
    """The model of this stage; only its widths may differ from the run's."""

    parallel: ParallelConfig
    """Layout of this stage."""

    batch: BatchConfig
    """Batch of this stage."""

    learning_rate: LearningRateConfig
    """Schedule of this stage: its own keys where it restarts; a stage that continues has its
    predecessor's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When checkpoints are written and how many are kept."""

    interval: Tokens | None = None
    """Tokens between checkpoints; unset: only at the end of each stage and of the run."""

    keep: int = 2
    """Checkpoints kept; older ones are deleted after a newer one is complete."""

    asynchronous: bool = True
    """Write in the background while training goes on."""

    growth_scratch: str | None = None
    """Folder for in-flight growth (tmpfs or local disk on one node, shared on several); unset: in
    the run's folder."""

    growth_staging: Bytes = 256 * 1024**2
    """Bytes each process may use to send and receive during growth in memory, `1MiB` at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Validation loss per bucket."""

    interval: Tokens | None = None
    """Tokens between evaluations; unset: only at the end of each stage."""

    sequences: int = 64
    """Held-out sequences per bucket (fewer if the bucket has fewer)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggingConfig:
    """What is written while training."""

    interval: int = 1
    """Optimizer steps between step records."""

    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl."""

    wandb_project: str | None = None
    """Weights & Biases project to log to; unset: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitsConfig:
    """When a run stops by itself."""

    wall_time: Seconds | None = None
    """Save and exit with the requeue code after this long; unset: no limit."""

    on_nan: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is not finite: stop with an error, or skip that update."""

    max_skips: int = 10
    """Skipped updates in a row after which `skip` stops as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One run: everything `pretrain_grow.py` needs to know."""

    name: str
    """Name of the run; unset in YAML: the file's name without its suffix."""

    output: str
    """Folder of the run; unset in YAML: `runs/<name>`."""

    seed: int = 1234
    """Seed of initialisation, data order and dropout."""

    initialise_from: str | None = None
    """A checkpoint, or the folder of a run, whose weights the first stage begins with, for example
    what `tools/convert_checkpoint.py from-hf` made; unset: drawn."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of weights and activations; the optimizer always works in fp32."""

    deterministic: bool = False
    """On a GPU, choose kernels that give the same bits each time, which are slower."""

    model: ModelConfig
    """The model's shape."""

    data: DataConfig
    """The data."""

    stages: tuple[StageConfig, ...]
    """The stage table, in order."""

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """Layout of stages that set none."""

    batch: BatchConfig
    """Batch of stages that set none."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer."""

    learning_rate: LearningRateConfig
    """The schedule of stages that set none."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Evaluation."""

    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """Logging."""

    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Limits."""

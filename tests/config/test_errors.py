"""Every way a configuration can be wrong: the message names file, line and key, and mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from megagrow.config import load
from megagrow.errors import ConfigError
from tests.config.conftest import Load

LAST_STAGE = "    parallel: {tensor: 2}\n"
WIDE = "  - {layers: 4, tokens: 1K, mixture: {hard: 1}, model: {hidden_size: 128}"
THIRD = "  - {layers: 4, tokens: 1K, mixture: {hard: 1}"

# What to replace, by what (`# here` marks the line that is to be named), the key, the message.
FAULTS = [
    # Shape of the file.
    ("seq_length: 32", "seq_lenght: 32 # here", "model.seq_lenght", "did you mean `seq_length`?"),
    ("seq_length: 32", "xyz: 32 # here", "model.xyz", "valid keys: dropout, ffn_hidden_size"),
    ("model:", "modle: {} # here\nmodel:", "modle", "did you mean `model`?"),
    ("tokens: 10K", "token: 10K # here", "stages.0.token", "did you mean `tokens`?"),
    ("tensor: 2}", "tensr: 2} # here", "stages.1.parallel.tensr", "did you mean `tensor`?"),
    ("model:\n  hidden_size: 64", "model: # here", "model", "`hidden_size` is missing (a whole"),
    ("    tokens: 10K\n", "", "stages.0", "`tokens` is missing (a number of tokens such as 20M)"),
    ("  peak: 3e-4\n", "", "learning_rate", "the key `peak` is missing (a number)"),
    ("    mixture: {easy: 1.0}\n", "", "stages.0", "the key `mixture` is missing (a mapping)"),
    ("hidden_size: 64", "hidden_size: 6.5 # here", "model.hidden_size", "a whole number, got 6.5"),
    ("hidden_size: 64", "hidden_size: true # here", "model.hidden_size", "whole number, got True"),
    ("peak: 3e-4", "peak: fast # here", "learning_rate.peak", "expected a number, got 'fast'"),
    ("peak: 3e-4", "peak: .nan # here", "learning_rate.peak", "expected a number, got nan"),
    ("peak: 3e-4", "peak: .inf # here", "learning_rate.peak", "expected a number, got inf"),
    ("tokens: 10K", "tokens: 10KB # here", "stages.0.tokens", "'10KB' is not a number of tokens"),
    ("tokens: 10K", "tokens: -5 # here", "stages.0.tokens", "-5 is not a whole number of tokens"),
    ("batch:", "limits: {wall_time: soon} # here\nbatch:", "limits.wall_time", "not a duration"),
    ("tensor: 2}", "recompute: ful} # here", "stages.1.parallel.recompute", "did you mean `full`?"),
    ("seq_length: 32", "seq_length: 32\n  style: 7 # here", "model.style", "one of: gpt2, llama"),
    ("easy: easy", "easy: 7 # here", "data.buckets.easy", "expected a list, got 7"),
    ("easy: easy", "easy: [7] # here", "data.buckets.easy.0", "expected text, got 7"),
    ("seq_length: 32", "seq_length: 32\n  init: 3 # here", "model.init", "a mapping with the keys"),
    ("{easy: 1.0}", "easy # here", "stages.0.mixture", "expected a mapping, got 'easy'"),
    ("{tensor: 2}", "2 # here", "stages.1.parallel", "expected a mapping, got 2"),
    (LAST_STAGE, LAST_STAGE + "    transition: 3 # here\n", "stages.1.transition", "got 3"),
    # Model.
    ("hidden_size: 64", "hidden_size: 0 # here", "model.hidden_size", "at least 1, not 0"),
    ("_groups: 2", "_groups: 0 # here", "model.num_query_groups", "at least 1, not 0"),
    ("_groups: 2", "_groups: 3 # here", "model.num_query_groups", "key/value heads; nearest: 2"),
    ("_heads: 4", "_heads: 6 # here", "model.num_attention_heads", "nearest: 4 heads, or hidden"),
    ("_heads: 4", "_heads: 64 # here", "model.num_attention_heads", "not 1; set kv_channels to 2"),
    ("seq_length: 32", "seq_length: 32\n  kv_channels: 7 # here", "model.kv_channels", "to 8"),
    ("seq_length: 32", "seq_length: 32\n  dropout: 1 # here", "model.dropout", "below 1"),
    ("seq_length: 32", "seq_length: 32\n  init: {std: 0} # here", "model.init.std", "above 0"),
    ("seq_length: 32", "seq_length: 32\n  norm_epsilon: 0 # here", "model.norm_epsilon", "above 0"),
    # Run.
    ("batch:", 'name: "" # here\nbatch:', "name", "'' cannot name a run"),
    ("batch:", "name: ../x # here\nbatch:", "name", "letters, digits and . _ - + = @"),
    ("batch:", "name: .. # here\nbatch:", "name", "'..' cannot name a run"),
    ("batch:", "name: a/b # here\nbatch:", "name", "'a/b' cannot name a run"),
    ("batch:", "name: -rf # here\nbatch:", "name", "'-rf' cannot name a run"),
    ("batch:", 'name: "a\\n" # here\nbatch:', "name", "cannot name a run"),
    ("batch:", f"name: {'a' * 101} # here\nbatch:", "name", "up to 100"),
    ("batch:", 'output: "" # here\nbatch:', "output", "is empty; name the run's folder"),
    ("batch:", 'output: " " # here\nbatch:', "output", "is empty; name the run's folder"),
    ("batch:", "seed: -1 # here\nbatch:", "seed", "must be at least 0, not -1"),
    ("batch:", "checkpoint: {keep: 0} # here\nbatch:", "checkpoint.keep", "at least 1, not 0"),
    ("batch:", "checkpoint: {interval: 0} # here\nbatch:", "checkpoint.interval", "at least 1"),
    ("batch:", "evaluation: {interval: 0} # here\nbatch:", "evaluation.interval", "at least 1"),
    ("batch:", "evaluation: {sequences: 0} # here\nbatch:", "evaluation.sequences", "at least 1"),
    ("batch:", "logging: {interval: 0} # here\nbatch:", "logging.interval", "at least 1"),
    ("batch:", "limits: {max_skips: 0} # here\nbatch:", "limits.max_skips", "at least 1"),
    ("batch:", "optimizer: {beta2: 1.0} # here\nbatch:", "optimizer.beta2", "below 1"),
    ("batch:", "optimizer: {clip_grad: -1} # here\nbatch:", "optimizer.clip_grad", "negative"),
    ("batch:", "optimizer: {epsilon: 0} # here\nbatch:", "optimizer.epsilon", "above 0"),
    ("batch:", "checkpoint: {growth_staging: 1MB} # here\nbatch:", "checkpoint.growth_staging",
     "must be at least 1MiB, not 1000000 bytes"),
    # Data.
    ("easy: easy", "easy: [] # here", "data.buckets.easy", "no prefix; give it one, or remove"),
    ("[hard-0, hard-1]", "[hard-0, easy] # here", "data.buckets.hard", "in bucket 'easy' already"),
    ("[hard-0, hard-1]", "./x/../easy.bin # here", "data.buckets.hard", "leave it in one place"),
    ("hard-1]", "hard-0] # here", "data.buckets.hard", "'hard-0' is in bucket 'hard' already"),
    ("  buckets:\n    easy: easy\n    hard: [hard-0, hard-1]", "  buckets: {} # here",
     "data.buckets", "name at least one bucket"),
    ("data:", "data:\n  validation_fraction: 1.0 # here", "data.validation_fraction", "below 1"),
    # Stages.
    ("name: large", "name: small # here", "stages.1.name", "another stage is called 'small' too"),
    ("layers: 2", "layers: 0 # here", "stages.0.layers", "must be at least 1"),
    ("tokens: 10K", "tokens: 0 # here", "stages.0.tokens", "must be above 0"),
    ("{easy: 1.0}", "{esy: 1.0} # here", "stages.0.mixture.esy", "did you mean `easy`?"),
    ("{easy: 1.0}", "{web: 1.0} # here", "stages.0.mixture.web", "buckets: easy, hard"),
    ("{easy: 1.0}", "{easy: 0.9} # here", "stages.0.mixture", "sum to 0.9; they must sum to 1"),
    ("{easy: 1.0}", "{easy: 1.5, hard: -0.5} # here", "stages.0.mixture.hard", "0 to 1, not -0.5"),
    ("{easy: 1.0}", "{easy: 1.0}\n    mixture_end: {easy: 2} # here", "stages.0.mixture_end", "2"),
    ("tensor: 2}", "tensor: 0} # here", "stages.1.parallel.tensor", "must be at least 1"),
    ("tensor: 2}", "tensor: 3} # here", "stages.1.parallel.tensor", "size that works: 2"),
    ("tensor: 2}", "tensor: 4} # here", "stages.1.parallel.tensor", "num_query_groups 2 is not"),
    ("tensor: 2}", "sequence_parallel: true} # here", "stages.1.parallel.sequence_parallel",
     "needs a tensor parallel size above 1; set it to false"),
    ("tensor: 2}", "virtual_pipeline: 2, pipeline: 1} # here", "stages.1.parallel.virtual_pipeline",
     "needs a pipeline size above 1; set it to 1"),
    ("tensor: 2}", "pipeline: 8} # here", "stages.1.parallel.pipeline",
     "4 layers cannot fill 8 pipeline stages (pipeline 8 x virtual 1); use at most 4"),
    ("tensor: 2}", "balance: time} # here", "stages.1.parallel.balance", "did you mean `times`?"),
    ("tensor: 2}", "balance: times} # here", "stages.1.parallel.balance", "set layer_times to one"),
    ("tensor: 2}", "layer_times: t.json} # here", "stages.1.parallel.layer_times",
     "is not read with balance flops; set that to times, or remove"),
    ("tensor: 2}", "memory_limit: 75G} # here", "stages.1.parallel.memory_limit",
     "'75G' is not a number of bytes: write a whole number of bytes, or text such as 75GB"),
    ("tensor: 2}", "memory_limit: 0} # here", "stages.1.parallel.memory_limit", "above 0; remove"),
    ("tensor: 2}", "layers_per_chunk: [4]} # here", "stages.1.parallel.layers_per_chunk",
     "names 1 chunks, and pipeline 2 x virtual 1 has 2; nearest: [2, 2]"),
    ("tensor: 2}", "layers_per_chunk: [4, 0]} # here", "stages.1.parallel.layers_per_chunk",
     "gives a chunk no layer; each needs one; nearest: [3, 1]"),
    ("tensor: 2}", "layers_per_chunk: [2, 1]} # here", "stages.1.parallel.layers_per_chunk",
     "sums to 3, and the stage has 4 layers; nearest: [2, 2], or remove the key"),
    ("tensor: 2}", "layers_per_chunk: [5, 2]} # here", "stages.1.parallel.layers_per_chunk",
     "sums to 7, and the stage has 4 layers; nearest: [3, 1]"),
    ("tensor: 2}", "overlap_param_gather: true} # here",
     "stages.1.parallel.overlap_param_gather", "set both, or remove this key"),
    ("tensor: 2}", "ddp_bucket_size: 0} # here", "stages.1.parallel.ddp_bucket_size", "at least 1"),
    (LAST_STAGE, "    parallel: {cross_entropy_fusion: native} # here\nprecision: fp32\n",
     "stages.1.parallel.cross_entropy_fusion", "and the precision is fp32; set it to none"),
    (LAST_STAGE, "    parallel: {cross_entropy_fusion: te} # here\ndeterministic: true\n",
     "stages.1.parallel.cross_entropy_fusion", "is not deterministic; set it to none"),
    (LAST_STAGE, "    batch: {micro_size: 0} # here\n", "stages.1.batch.micro_size", "at least 1"),
    (LAST_STAGE, "    batch: {global_size: 9} # here\n", "stages.1.batch.global_size",
     "9 is not a multiple of micro_size 2; nearest: 8"),
    (LAST_STAGE, "    batch: {global_size: 6} # here\n    parallel: {virtual_pipeline: 2}\n",
     "stages.1.batch.global_size", "by the pipeline size 2, not 3; nearest: 4"),
    ("peak: 3e-4", "peak: 0 # here", "learning_rate.peak (for stages.0)", "must be above 0"),
    ("peak: 3e-4", "peak: 3e-4\n  minimum: 1 # here", "learning_rate.minimum (for stages.0)",
     "must lie between 0 and the peak 0.0003, not 1"),
    ("peak: 3e-4", "peak: 3e-4\n  decay: wsd # here", "learning_rate.decay (for stages.0)",
     "set decay_tokens"),
    ("peak: 3e-4", "peak: 3e-4\n  horizon: 1K # here", "learning_rate.horizon (for stages.0)",
     "beyond the warmup of 1000 tokens"),
    # Transitions.
    ("tensor: 2}", "tensor: 2}\n    transition: {through: disk} # here",
     "stages.1.transition.through", "one of: memory, checkpoint"),
    ("name: small", "name: small\n    transition: {optimizer: copy} # here",
     "stages.0.transition", "the first stage has nothing before it; remove the key"),
    (LAST_STAGE, "  - {layers: 2, tokens: 1K, mixture: {hard: 1}} # here\n", "stages.2.layers",
     "4 -> 2 layers: only the operator `first` makes a model shallower"),
    (LAST_STAGE, THIRD + ", transition: {operator: stack}} # here\n",
     "stages.2.transition.operator", "stack needs more layers than 4; remove the key"),
    ("tensor: 2}", "tensor: 2}\n    transition: {operator: none} # here",
     "stages.1.transition.operator", "2 -> 4 layers need a growth operator such as stack"),
    (LAST_STAGE, THIRD + ", learning_rate: {peak: 1}} # here\n", "stages.2.learning_rate",
     "goes on with the schedule (continue) cannot change it"),
    (LAST_STAGE, THIRD.replace("4", "8") + ", transition: {pattern: '12'}} # here\n",
     "stages.2.transition.pattern", "is read by operator: pattern alone"),
    (LAST_STAGE, THIRD + ", transition: {optimizer: keep_old_zero_new}} # here\n",
     "stages.2.transition.optimizer", "is about new weights, and none adds none"),
    (LAST_STAGE, THIRD + ", transition: {noise: 0.1}} # here\n",
     "stages.2.transition.noise", "none takes no noise"),
    (LAST_STAGE, THIRD + ", transition: {optimizer: scale, moment_scale: [1]}} # here\n",
     "stages.2.transition.moment_scale", "scale needs two factors"),
    ("layers: 4", "layers: 4\n    transition: {new_output: mask} # here",
     "stages.1.transition.mask_tokens", "a mask needs the tokens it takes to rise"),
    ("layers: 4", "layers: 4\n    transition: {noise: 2} # here",
     "stages.1.transition.noise", "is a share from 0 to 1, not 2"),
    ("name: small", "name: small\n    trainable: new # here",
     "stages.0.trainable", "new is what a growth adds, and none comes before"),
    # Width, LESA and LiGO.
    (LAST_STAGE, THIRD + ", model: {seq_length: 16}} # here\n",
     "stages.2.model.seq_length", "stages may differ only in hidden_size"),
    (LAST_STAGE, WIDE + "} # here\n",
     "stages.2.transition", "set width.operator, such as hyperclone"),
    (LAST_STAGE, THIRD + ", transition: {width: {operator: split}}} # here\n",
     "stages.2.transition.width", "has the widths of the stage before"),
    (LAST_STAGE, WIDE + ", transition: {width: {}}} # here\n",
     "stages.2.transition.width", "`operator` is missing (one of: split, zero, random"),
    ("batch:", 'initialise_from: "" # here\nbatch:', "initialise_from", "is empty; name a check"),
    (LAST_STAGE, WIDE + ", transition: {width: {operator: split, snr_db: 3}}} # here\n",
     "stages.2.transition.width.snr_db", "is read by hyperclone alone"),
    (LAST_STAGE, WIDE + ", transition: {width: {operator: split, alpha: 0.5}}} # here\n",
     "stages.2.transition.width.alpha", "is a share between 0 and 1, and not one half"),
    (LAST_STAGE,
     WIDE + ", transition: {width: {operator: rms_preserving, fan_in: zero, fan_out: zero}}}"
     " # here\n",
     "stages.2.transition.width.fan_in", "new channels would get no gradient"),
    (LAST_STAGE,
     WIDE + ", transition: {width: {operator: double}, optimizer: keep_old_zero_new}}"
     " # here\n",
     "stages.2.transition.optimizer", "not defined for double"),
    (LAST_STAGE,
     WIDE + ", transition: {width: {operator: split}, learning_rate: rewarm_new}} # here\n",
     "stages.2.transition.learning_rate", "is about new layers, and operator none adds none"),
    (LAST_STAGE, WIDE + ", transition: {width: {operator: split, mask_tokens: 1K}}} # here\n",
     "stages.2.transition.width.mask_tokens", "is read by random alone"),
    ("layers: 4", "layers: 4\n    transition: {operator: learned, optimizer: copy} # here",
     "stages.1.transition.optimizer", "learned makes every layer of all old ones"),
    ("layers: 4", "layers: 4\n    transition: {operator: learned, noise: 0.1} # here",
     "stages.1.transition.noise", "set it to 0.0"),
    ("layers: 4", "layers: 4\n    transition: {operator: learned, learned: {steps: 0}} # here",
     "stages.1.transition.learned.steps", "must be at least 1, not 0"),
    ("layers: 4", "layers: 4\n    transition: {operator: lesa, lesa: {epochs: 0}} # here",
     "stages.1.transition.lesa.epochs", "must be at least 1, not 0"),
    ("layers: 4", "layers: 4\n    transition: {lesa: {epochs: 1}} # here",
     "stages.1.transition.lesa", "is read by operator: lesa alone"),
    ("tokens: 10K", "tokens: 0 # here",
     "stages.0.tokens", "only a first stage that initialise_from"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "key", "message"), FAULTS)
def test_names_line_key_and_remedy(
    base: str, load_text: Load, old: str, new: str, key: str, message: str
) -> None:
    assert old in base
    text = base.replace(old, new, 1)
    line = next((n for n, row in enumerate(text.splitlines(), 1) if "# here" in row), None)
    with pytest.raises(ConfigError) as error:
        load_text(text)
    said = str(error.value)
    where = "run.yaml:" if line is None else f"run.yaml:{line}: "
    assert said.startswith(where)
    assert f": {key}: " in said
    assert message in said


@pytest.mark.parametrize(("folder", "prefix"), [(".", "{}/easy"), ("{}/data", "../data/easy.idx")])
def test_one_file_is_known_by_every_way_to_write_it(
    base: str, load_text: Load, tmp_path: Path, folder: str, prefix: str
) -> None:
    place, other = folder.format(tmp_path), prefix.format(tmp_path)
    with pytest.raises(ConfigError, match=r"hard: .* is in bucket 'easy' already"):
        load_text(base, f"data.path={place}", f"data.buckets.hard={other}")


@pytest.mark.parametrize("name", ["a", "run_2.5B-x", "lr=3e-4", "gstack+tied@v2", "größe", "0"])
def test_usual_names_are_fine(base: str, load_text: Load, name: str) -> None:
    config = load_text(base, f"name='{name}'")
    assert (config.name, config.output) == (name, f"runs/{name}")


def test_missing_section_is_named_at_the_top(base: str, load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"^run.yaml: the key `batch` is missing \(a mapping\)$"):
        load_text(base.replace("batch:\n  global_size: 8\n  micro_size: 2\n", ""))


def test_inherited_key_is_named_where_it_stands(base: str, load_text: Load) -> None:
    line = base.splitlines().index("  pipeline: 2") + 1
    with pytest.raises(ConfigError) as error:
        load_text(base.replace("  pipeline: 2", "  pipeline: 4"))
    start = f"run.yaml:{line}: parallel.pipeline (for stages.0): 2 layers cannot fill 4"
    assert str(error.value).startswith(start)


def test_schedule_carried_over_is_named_where_it_stands(base: str, load_text: Load) -> None:
    """Stage 2 takes the key from stage 1, which is the one that fails first."""
    text = base + "    learning_rate:\n      peak: 0\n" + THIRD + "}\n"
    with pytest.raises(
        ConfigError, match=r"^run.yaml:30: stages.1.learning_rate.peak: must be above"
    ):
        load_text(text)


@pytest.mark.parametrize(
    ("override", "key", "message"),
    [
        ("model.hiden_size=5", "model.hiden_size", "did you mean `hidden_size`?"),
        ("model.num_attention_heads=6", "model.num_attention_heads", "nearest: 4"),
        ("stages.large.tokens=many", "stages.1.tokens", "'many' is not a number of tokens"),
        ("stages.1.transition.noise=2", "stages.1.transition.noise", "a share from 0 to 1"),
        ("parallel.pipeline=4", "parallel.pipeline (for stages.0)", "cannot fill 4 pipeline"),
        ("batch={global_size: 9, micro_size: 2}", "batch.global_size (for stages.0)", "nearest: 8"),
        ("stages.0.mixture={esy: 1}", "stages.0.mixture.esy", "did you mean `easy`?"),
    ],
)
def test_override_at_fault_is_named(
    base: str, load_text: Load, override: str, key: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_text(base, "seed=5", override)
    assert str(error.value).startswith(f"override {override!r}: {key}: ")
    assert message in str(error.value)


def test_later_override_is_the_one_named(base: str, load_text: Load) -> None:
    with pytest.raises(ConfigError, match=r"^override 'model={hidden_size: x}': model: "):
        load_text(base, "model.hidden_size=y", "model={hidden_size: x}")


def _many_aliases() -> str:
    """Nine lists of ten lists of ten lists ... in nine lines."""
    lines = ["a0: &a0 [1]"]
    lines += [f"a{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}'])}]" for n in range(1, 9)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"run.yaml:3: a: the key already stands on line 1; keep one of the"),
        ("a: [1\n", r"run.yaml: not valid YAML: .*line 2"),
        ("- a\n- b\n", r"run.yaml: expected a mapping of keys such as `model:` and `stages:`"),
        ("", r"run.yaml: expected a mapping"),
        ("a: 1\n---\nb: 1\n", r"run.yaml: not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", r"run.yaml: not valid YAML"),
        ("a: &a [*a]\n", r"run.yaml: nested too deeply, or an alias .* contains itself; write"),
        ("a: " + 3000 * "[", r"run.yaml: nested too deeply"),
        ("a: 1\0\n", r"run.yaml: not valid YAML: .*#x0000"),
        (_many_aliases(), r"run.yaml: more than 100000 values; write out fewer aliases"),
        ("name: x\n", r"run.yaml: stages: expected a list with at least one stage"),
        ("stages: []\n", r"run.yaml:1: stages: expected a list with at least one stage"),
        ("stages:\n- 3\n", r"run.yaml:2: stages.0: expected a mapping, got 3"),
    ],
)
def test_file_at_fault(load_text: Load, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)^{message}"):
        load_text(text)


def test_absent_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"smal.yaml: no such file; did you mean .*small.yaml\?$"):
        load(tmp_path / "smal.yaml")
    with pytest.raises(ConfigError, match=r"no such file$"):
        load(tmp_path / "nowhere" / "x.yaml")


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"run.yaml: cannot be read"):
        load(tmp_path / "run.yaml")


def test_a_stage_need_not_read_the_layer_times_of_the_run(base: str, load_text: Load) -> None:
    run = base.replace("  pipeline: 2", "  pipeline: 2\n  balance: times\n  layer_times: t.json")
    config = load_text(run.replace("tensor: 2}", "balance: even}"))
    assert [stage.parallel.balance for stage in config.stages] == ["times", "even"]
    some = base.replace("  pipeline: 2", "  pipeline: 2\n  layer_times: t.json")
    assert load_text(some.replace("tensor: 2}", "balance: times}"))
    with pytest.raises(ConfigError, match=r"parallel.layer_times \(for stages.0\): is not read"):
        load_text(some)
    own = "balance: even, layer_times: t.json}"
    with pytest.raises(ConfigError, match=r"stages.1.parallel.layer_times: is not read with"):
        load_text(run.replace("tensor: 2}", own))

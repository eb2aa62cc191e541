"""Keys of the tensors in a checkpoint, beside those of the weights."""

MOMENTS = ("optimizer.state.exp_avg.", "optimizer.state.exp_avg_sq.")
"""Starts of the keys of Adam's moments; the weight's own key follows."""

MASTER = "optimizer.state.param."
"""Start of the key of an fp32 master weight, whatever the optimizer's class, so that a stage may
shard its optimizer and the next one not. Stored in bf16 only: in fp32 they are the weights."""

EXTRA = "_extra_state"
"""End of the keys of Transformer Engine's fp8 statistics: empty in bf16 and fp32, and left out, so
that a checkpoint loads with it and without it."""

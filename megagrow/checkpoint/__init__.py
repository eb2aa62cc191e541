"""Checkpoints: live models <-> megatron-core's distributed format, and the folders of a run."""

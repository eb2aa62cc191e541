"""Checkpoints: a live model and optimizer <-> megatron-core's distributed format, and the folders
they live in."""

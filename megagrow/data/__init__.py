"""Tokens on disk: written as Megatron .bin/.idx buckets, read back as training sequences."""

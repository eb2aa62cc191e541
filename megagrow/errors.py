"""Errors that reach the user. Each message says what is wrong, where, and how to mend it."""

from __future__ import annotations


class MegagrowError(Exception):
    """Base of every error a user can mend; entry points print its message without a traceback."""


class ConfigError(MegagrowError):
    """A run configuration that cannot be run: unknown key, wrong type, impossible combination."""


class DataError(MegagrowError):
    """Training or evaluation data that is missing, empty, truncated or inconsistent."""


class CheckpointError(MegagrowError):
    """A checkpoint that is missing, damaged, or of another run configuration."""


class LayoutError(MegagrowError):
    """A parallel layout that does not fit the model or the number of processes."""


class TrainingError(MegagrowError):
    """Training cannot go on, for example because the loss is not finite."""

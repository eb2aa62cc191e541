"""megagrow: language models that grow while they train, on megatron-core."""

__version__ = "0.1.0"

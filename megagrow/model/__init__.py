"""A model shape -> a megatron-core GPT: shapes, FLOPs, specs, initialisation."""

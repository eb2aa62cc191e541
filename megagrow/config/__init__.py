"""The run configuration: typed dataclasses, the strict YAML loader, dotted overrides."""

from megagrow.config.loader import load, to_dict
from megagrow.config.schema import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    InitConfig,
    LearningRateConfig,
    LimitsConfig,
    LoggingConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    RunConfig,
    StageConfig,
    TransitionConfig,
)

__all__ = [
    "BatchConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "InitConfig",
    "LearningRateConfig",
    "LimitsConfig",
    "LoggingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParallelConfig",
    "RunConfig",
    "StageConfig",
    "TransitionConfig",
    "load",
    "to_dict",
]

"""Checkpoints from and to other formats: Hugging Face folders of safetensors, never pickles.

A format is a list of stored tensors, each made of one or several tensors of an unfused model
(`megagrow.model.tensors`), so any format converts to any other, tensor by tensor.
"""

from megagrow.conversion.distributed import CheckpointReader, write_checkpoint
from megagrow.conversion.exporting import Exported, to_hugging_face
from megagrow.conversion.importing import Imported, from_hugging_face
from megagrow.conversion.layout import Converted, Layout, StoredTensor, TensorSource, check
from megagrow.conversion.safetensors_folder import SafetensorsReader, SafetensorsWriter

__all__ = [
    "CheckpointReader",
    "Converted",
    "Exported",
    "Imported",
    "Layout",
    "SafetensorsReader",
    "SafetensorsWriter",
    "StoredTensor",
    "TensorSource",
    "check",
    "from_hugging_face",
    "to_hugging_face",
    "write_checkpoint",
]

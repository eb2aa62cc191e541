"""Moving and combining runs of elements in one pass over memory: the Python side of `csrc`."""

from megagrow.kernels.combination import Combination, Noise, combine_segments
from megagrow.kernels.segments import Segments, copy_segments

__all__ = ["Combination", "Noise", "Segments", "combine_segments", "copy_segments"]

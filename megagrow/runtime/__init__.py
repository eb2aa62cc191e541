"""Where the code runs: CUDA with NCCL, or CPU with gloo; processes, groups, seeds, logging.

Import the modules (``from megagrow.runtime import processes``), not names from here: this file
stays empty so that pure rooms never pay for importing torch.
"""

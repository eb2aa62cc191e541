"""The training loop, its optimizer, checkpoints, metrics and signals."""

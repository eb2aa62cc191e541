"""LESA: weights of new layers, predicted from those of their neighbours (arXiv 2502.13794)."""

"""LiGO (G_learn): a larger model as a learned linear map of a smaller one (arXiv 2303.00980)."""

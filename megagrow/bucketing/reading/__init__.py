"""Input files -> rows of text."""

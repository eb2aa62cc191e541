"""Validation loss per bucket."""

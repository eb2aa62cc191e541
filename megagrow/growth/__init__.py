"""Growth: which new layer comes from which old ones, and running that on a live model."""

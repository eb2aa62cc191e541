"""Width: every tensor of a wider model from that tensor of the old one, one at a time."""

"""Which layer lives on which pipeline stage, and moving state to where it then belongs."""

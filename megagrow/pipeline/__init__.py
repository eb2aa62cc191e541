"""Which layer lives on which pipeline stage."""

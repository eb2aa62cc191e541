"""Which layer lives on which pipeline stage: costs, memory, and the split that suits both."""

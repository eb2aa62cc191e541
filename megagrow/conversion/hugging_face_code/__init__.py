"""Python files that an exported folder of the family `megagrow` holds; only transformers runs them.

They import torch and transformers, nothing of this package, and are copied as they are.
"""

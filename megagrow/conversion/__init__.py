"""Checkpoints from and to other formats: Hugging Face folders of safetensors, never pickles.

A format is a list of stored tensors, each made of one or several tensors of an unfused model
(`megagrow.model.tensors`), so any format converts to any other, tensor by tensor.
"""

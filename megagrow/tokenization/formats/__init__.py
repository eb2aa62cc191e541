"""Tokenizer formats, each read and used through the library that defines it."""

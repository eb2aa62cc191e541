"""Text -> token ids: the tokenizer formats in use, a fast engine, and its check against them."""

"""Shards of text -> difficulty buckets of tokens: read, tokenize, score, cut, write."""

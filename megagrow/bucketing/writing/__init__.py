"""Rows -> tokens -> parts -> buckets."""

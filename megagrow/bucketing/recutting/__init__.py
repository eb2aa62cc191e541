"""New buckets from finished ones, without their text."""

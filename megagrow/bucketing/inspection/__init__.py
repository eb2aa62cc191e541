"""Looking into finished buckets, and checking them."""

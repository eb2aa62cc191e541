"""What a job will take, from a sample."""

"""The scorer and the thresholds of a job, from a seeded sample."""

"""The work on single files under Slurm and Ray."""

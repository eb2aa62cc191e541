"""What a run will do and cost, computed before it starts."""

"""A run folder of an earlier version, and what made it."""

"""Metrics of trained translators, one concept per file."""

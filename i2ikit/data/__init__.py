"""Datasets, and training batches in a reproducible order."""

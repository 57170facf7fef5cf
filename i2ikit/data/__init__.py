"""Datasets, and batches in counted order."""

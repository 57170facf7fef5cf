"""Weights in the layouts of the official repositories."""

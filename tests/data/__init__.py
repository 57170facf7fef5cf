"""Tests of i2ikit/data."""

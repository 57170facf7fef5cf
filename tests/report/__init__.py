"""Tests of i2ikit.report."""

"""Tests of i2ikit/cli."""

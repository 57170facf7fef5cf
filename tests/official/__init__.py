"""Tests of i2ikit.official."""

"""Tests of i2ikit/packages."""

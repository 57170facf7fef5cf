"""Tests of i2ikit/exchange."""

"""Tests of i2ikit/pretrained."""

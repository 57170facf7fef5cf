"""Tests of the contract checks."""

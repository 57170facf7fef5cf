"""Tests of the methods in plugins/, beside the contracts that hold for all of them."""

"""Tests of i2ikit/metrics/, on a translator whose numbers are known beforehand."""

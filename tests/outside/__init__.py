"""Packages as other people would write them: each file is a package that a test installs."""

"""The components that ship with i2ikit; recipes name them, and each is an entry point in pyproject.toml."""

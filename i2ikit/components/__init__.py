"""The components that ship with i2ikit; each is an entry point in pyproject.toml, named in recipes."""

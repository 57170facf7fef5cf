"""The `i2ikit` command."""

"""What every registered component promises."""

"""Numbers that come from elsewhere."""

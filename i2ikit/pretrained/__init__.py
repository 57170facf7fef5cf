"""Networks that others trained, and how their weights are had."""

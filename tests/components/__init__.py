"""Components against the formulas of their papers."""

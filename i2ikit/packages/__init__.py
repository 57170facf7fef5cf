"""What installed packages offer, read without importing them, and what is said of it."""

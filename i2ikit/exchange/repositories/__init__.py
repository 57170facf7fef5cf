"""One page per official repository: which of its files make up which translator, and back."""

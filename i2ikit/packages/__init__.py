"""Components and recipes of installed packages: discovery without imports, checks and documentation."""

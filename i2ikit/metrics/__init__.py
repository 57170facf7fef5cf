"""What can be measured of a trained translator, one concept to a file."""

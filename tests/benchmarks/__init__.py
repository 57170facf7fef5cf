"""What costs time: `make bench`."""

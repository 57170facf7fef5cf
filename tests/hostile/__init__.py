"""Files and texts that are damaged or forged, in the place of everything that a command reads."""

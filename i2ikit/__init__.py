"""i2ikit: train networks that turn one image into many plausible images of another domain."""

from i2ikit.packages.survey import survey

__version__ = "0.1.0"

if survey().fatal:
    from i2ikit.packages.shield import hide_entry_points

    hide_entry_points(survey().fatal)

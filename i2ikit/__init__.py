"""i2ikit: train networks that turn one image into many plausible images of another domain."""

from i2ikit.discovery import find
from i2ikit.registry import Registry

__version__ = "0.1.0"

Registry.finder = staticmethod(find)

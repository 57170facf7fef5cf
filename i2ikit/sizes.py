"""Image sizes that components accept: checked before training; inference pads (`translator.padded`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["SizeRequirement"]


@dataclass(frozen=True)
class SizeRequirement:
    """Image sizes that a component accepts; `a & b` satisfies both requirements.

    Args:
        minimum: the shortest side, in pixels.
        multiple_of: both sides must be multiples of it, in pixels.

    Raises:
        ValueError: one of the values is below 1.
    """

    minimum: int = 1
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.minimum < 1 or self.multiple_of < 1:
            raise ValueError(
                f"minimum = {self.minimum}, multiple_of = {self.multiple_of}; both need 1 or more"
            )

    def __and__(self, other: SizeRequirement) -> SizeRequirement:
        return SizeRequirement(
            max(self.minimum, other.minimum), math.lcm(self.multiple_of, other.multiple_of)
        )

    def __str__(self) -> str:
        if self.multiple_of == 1:
            return f"{self.minimum} px or more"
        if self.minimum <= self.multiple_of:
            return f"multiples of {self.multiple_of} px"
        return f"{self.minimum} px or more, in multiples of {self.multiple_of}"

    def enlarged(self, side: int) -> int:
        """The shortest valid side that is not below `side`."""
        # Without a division of negative numbers, which rounds in another way in exported programs.
        return (max(side, self.minimum) + self.multiple_of - 1) // self.multiple_of * self.multiple_of

    def nearest(self, side: int) -> list[int]:
        """The nearest valid sides below (if there is one) and above."""
        below = side // self.multiple_of * self.multiple_of
        return sorted({size for size in (below, self.enlarged(side)) if size == self.enlarged(size) > 0})

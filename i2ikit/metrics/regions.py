"""Metrics of colour in the regions that an outline encloses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from i2ikit.errors import DataError
from i2ikit.metrics.pixels import is_line
from i2ikit.metrics.subject import Case, Count, Measured, Subject, counts_note, standard_error

__all__ = ["RegionColour", "Regions", "regions_of"]

NAMES = ("halo", "blotches", "fill", "variety")


class RegionColour:
    """Whether colour stays inside the lines, is present, is even in each region, and differs between regions.

    Lines are the pixels whose input luminance is below 0.5. Pixels that cannot be reached from the image
    border without crossing a line are inside; a region is a connected component of them, without the
    pixels next to a line. All values are on a 0..1 scale:

    - `halo`: mean of |y - x| outside (of the channel that differs most); colour outside the lines.
    - `blotches`: root mean square, over the pixels of all regions, of y minus its mean in that region.
    - `fill`: mean of |y - x| in all regions (of the channel that differs most); 0 means left white.
    - `variety`: root mean square of each region's mean minus the mean of all; 0 means one colour.

    Each value is the mean over inputs, ± its standard error; it ignores inputs without an outside, a
    region, or (for `variety`) two regions. With pairs, the same values are given for the `real` targets
    of the inputs, and `excess` is the value of the translations minus that of the targets.

    Args:
        num_inputs: number of distinct held-out inputs (fewer if fewer exist).
        num_styles: random styles per input.
        least_pixels: smaller regions are ignored.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        "halo/translations": False,
        "blotches/translations": False,
    }

    def __init__(
        self,
        *,
        num_inputs: Count = 100,
        num_styles: Count = 6,
        least_pixels: Annotated[int, Field(ge=2)] = 12,
    ) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles
        self.least_pixels = least_pixels

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        subject.check_colours(*subject.direction)
        samples = subject.samples(self.num_styles)
        aligned = subject.data.aligned

        def both(case: Case) -> Tensor:
            regions = regions_of(case.x, self.least_pixels)
            found = [_colours(case.x, case.outputs, regions)]
            if aligned:
                found.append(_colours(case.x, subject.target(case.index)[None], regions))
            return torch.stack(found)  # (1 or 2, 4)

        inputs = subject.inputs(self.num_inputs)
        found = subject.over_inputs(inputs, samples, both)
        values: dict[str, float] = {}
        for name, columns in zip(NAMES, found.unbind(2), strict=True):
            known = columns[~columns.isnan().any(1)]
            if not len(known):
                continue
            for row, of_inputs in zip(("translations", "real"), known.unbind(1), strict=False):
                values[f"{name}/{row}"] = of_inputs.mean().item()
                values[f"{name}/{row}_se"] = standard_error(of_inputs)
            if aligned:
                excess = known[:, 0] - known[:, 1]
                values[f"{name}/excess"] = excess.mean().item()
                values[f"{name}/excess_se"] = standard_error(excess)
        if "blotches/translations" not in values:
            raise DataError(
                "no held-out input has a region: lines (pixels darker than 0.5) that enclose lighter pixels"
            )
        return Measured(values, {"num_inputs": len(inputs)}, [counts_note(inputs, samples)])


@dataclass(frozen=True)
class Regions:
    """The parts of an outline.

    Args:
        outside: mask of the pixels that can be reached from the border, (H, W).
        inside: one mask for each region, (R, H, W).
    """

    outside: Tensor
    inside: Tensor


def regions_of(x: Tensor, least_pixels: int) -> Regions:
    """Outside and regions of an outline (C, H, W) in [-1, 1]; see `RegionColour`."""
    line = is_line(x).cpu().numpy()
    labels, count = ndimage.label(~line)  # 4-connected, so a diagonal line of pixels is closed
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    outside = np.isin(labels, border[border > 0])
    away = ndimage.binary_erosion(~line, np.ones((3, 3)), border_value=1)
    masks = [(labels == n) & away for n in range(1, count + 1) if n not in border]
    masks = [mask for mask in masks if mask.sum() >= least_pixels]
    inside = np.stack(masks) if masks else np.zeros((0, *line.shape), dtype=bool)
    return Regions(torch.from_numpy(outside).to(x.device), torch.from_numpy(inside).to(x.device))


def _colours(x: Tensor, y: Tensor, regions: Regions) -> Tensor:
    """The four values of an outline x (C, H, W), averaged over its colourings y (K, C', H, W): (4,)."""
    x, y = ((image.double() + 1) / 2 for image in (x, y))
    away = (y - x).abs().amax(1)  # (K, H, W); a greyscale x is broadcast
    covered = regions.inside.any(0)
    nothing = y.new_full((), torch.nan)
    numbers = [away[:, regions.outside].mean(), nothing, away[:, covered].mean(), nothing]
    means = torch.stack([y[:, :, mask].mean(2) for mask in regions.inside]) if covered.any() else None
    if means is not None:
        spread = [
            (y[:, :, mask] - mean[:, :, None]).square().sum((1, 2)) / y.shape[1]
            for mask, mean in zip(regions.inside, means, strict=True)
        ]
        numbers[1] = (torch.stack(spread).sum(0) / covered.sum()).sqrt().mean()
        if len(means) > 1:
            numbers[3] = (means - means.mean(0)).square().mean((0, 2)).sqrt().mean()
    return torch.stack(numbers)

"""Pages that need no network: templates with the looks that all of them share."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

__all__ = ["asset", "page"]


def page(template: str, **values: Any) -> str:
    """A page from a template of this folder; values are escaped, and one that is missing is an error."""
    return _environment().from_string(asset(template)).render(looks=asset("looks.css"), **values)


@functools.cache
def asset(name: str) -> str:
    """The text of a file of this folder."""
    return files("i2ikit.report").joinpath(name).read_text("utf-8")


@functools.cache
def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {}  # by default, keys are sorted
    return environment

"""The model card of a run: what it translates, samples, metrics, and how to use it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from i2ikit.run import Run
from i2ikit.translator import StyleEncoding

__all__ = ["PREFIX", "model_card"]

PREFIX = "hf://"


def model_card(run: Run, repo: str, licence: str | None, grid: str | None) -> str:
    """The model card, in Markdown with its metadata as YAML.

    Args:
        repo: ORG/NAME.
        licence: of the weights, by the Hub's identifier.
        grid: name of the picture of samples.
    """
    model, recipe = run.model, run.recipe
    spec, steps = recipe.translator, f"step {run.step}, batches of {recipe.training.batch_size}"
    domains = ", ".join(f"{domain} ({number} channels)" for domain, number in model.images.channels.items())
    directions = ", ".join(f"{d.source} to {d.to}" for d in model.translator.directions)
    style = model.translator.style_length(model.direction().to)
    follows = ", or the style of an exemplar" if isinstance(model.translator, StyleEncoding) else ""
    outputs = f"random styles of length {style}{follows}" if style else "one translation of each image"
    lines = [
        "---",
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "library_name: i2ikit",
        "pipeline_tag: image-to-image",
        "tags:",
        *(f"- {tag}" for tag in ("i2ikit", "image-to-image", spec.name)),
        "---",
        f"# {repo.partition('/')[2]}",
        "",
        f"An image-to-image translation model ({spec.name}), trained with i2ikit.",
        "",
        *([f"![Held-out images and their translations]({grid})", ""] if grid else []),
        "| | |",
        "|---|---|",
        f"| domains | {domains} |",
        f"| directions | {directions} |",
        f"| translations | {outputs} |",
        f"| size in training | {model.images.size} px; images of any size can be translated |",
        f"| data | {run.data.name} |",
        f"| training | {steps}, seed {recipe.seed} |",
        f"| licence | {licence or 'not stated'} |",
        f"| sha256 of the weights | {run.sha256} |",
        "",
        "## Use",
        "",
        "```sh",
        "pip install i2ikit",
        f"i2ikit translate {PREFIX}{repo} IMAGE.png",
        "```",
        "",
        "```python",
        "import i2ikit",
        "",
        f'pictures = i2ikit.load("{PREFIX}{repo}").translate("image.png")',
        "```",
        "",
        *_metrics(run),
    ]
    return "\n".join(lines)


def _metrics(run: Run) -> Iterator[str]:
    """A table of the reports in RUN/eval that were made with these weights."""
    rows: list[str] = []
    for path in sorted((run.folder / "eval").glob("*.json")):
        try:
            report = json.loads(path.read_text("utf-8"))
            if report["trained"]["sha256"] == run.sha256:
                rows += _rows(report, path.stem)
        except (OSError, AttributeError, LookupError, TypeError, ValueError):
            continue  # damaged; `i2ikit eval` makes it again
    if rows:
        yield from (
            "## Metrics",
            "",
            "| metric | direction | value | standard error | inputs |",
            "|---|---|---|---|---|",
        )
        yield from rows
        yield ""


def _rows(report: Mapping[str, Any], stem: str) -> Iterator[str]:
    # The name of the file ends with the options that were given, which tell two reports of one metric apart.
    options = stem.partition(f"-seed{report['seed']}")[2].removeprefix("-")
    metric = f"{report['metric']} ({options})" if options else report["metric"]
    for name, value in report["values"].items():
        if not name.endswith("_se") and isinstance(value, float) and math.isfinite(value):
            error = report["values"].get(f"{name}_se")
            shown = f"{error:.4f}" if isinstance(error, float) else ""
            label = f"{metric}: {name.replace('_', ' ')}"
            cells = label, report["direction"], f"{value:.4f}", shown, report.get("num_inputs", "")
            yield f"| {' | '.join(map(str, cells))} |"

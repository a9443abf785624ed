"""What the pages share that a run writes: their frame, and how figures are written in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page as HTML: one file that fetches nothing.

    Args:
        template: Name of its template, which extends `page.html.j2`.
        values: What it shows; all but markup is escaped.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gnncompose.tracking", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ms"] = milliseconds
    return environment.get_template(template).render(values)


def milliseconds(value: float) -> str:
    """Three digits that count, and never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 1e-3 else f"{value:.5f}"


def inline(svg: str) -> str:
    """A drawing within HTML, where the namespace goes without saying: the file then names no address at all."""
    return svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)

"""How `make docs` builds the site: of the Markdown as it lies in the clone, which is readable there without it."""

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
INDEX = "docs/index"
PLACES = ("docs", "benchmarks")
MADE = ("benchmarks/results/", "benchmarks/tables/")

project = "gnncompose"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Sources lie where their links lead to, so links work here as they do in the clone.
include_patterns = ["*.md", "docs/*", "benchmarks/*.md", "benchmarks/tables/*.md", "benchmarks/results/**"]
# Folders that hold no page, and may be large.
exclude_patterns = ["README.md", *(path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in PLACES)]
root_doc = INDEX
html_theme = "furo"
html_title = project
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 4
myst_enable_extensions = ["smartquotes"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
default_role = "code"  # docstrings write `name`
napoleon_use_ivar = True

_ENTRY = re.compile(r"^- \[[^\]]+\]\(([^)]+)\)", re.MULTILINE)
# A folder is no page: its link stays a word.
_FOLDER = re.compile(r"(?<!!)\[([^\]]+)\]\([^)#:]+/\)")
_BARE_FOLDER = re.compile(r"\[(\w+)\]\(\1\)")


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    """Make the side bar of the index's lists, words of links to folders, and pages of tables that a program wrote."""
    text = _FOLDER.sub(r"\1", source[0])
    if name == INDEX:
        text += "".join(map(_contents, text.split("\n## ")[1:]))
    elif name.startswith(MADE):
        title = " ".join(name.split("/")[1:])
        text = re.sub(r"^###? ", "## ", re.sub("^# .*", "", _BARE_FOLDER.sub(r"\1", text)), flags=re.MULTILINE)
        text = f"---\norphan: true\n---\n# {title}\n\n{text}"
    source[0] = text


def _contents(section: str) -> str:
    """A part of the side bar: the pages that a section of the index lists."""
    pages = [re.sub(r"\.\w+$", "", entry) for entry in _ENTRY.findall(section)]
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {section.splitlines()[0]}", "", *pages, "```", ""])


def _finish(app: Sphinx, failure: Exception | None) -> None:
    """Lead from the site's root to the index."""
    if failure is None and app.builder.format == "html":
        page = f'<!doctype html><title>{project}</title><meta http-equiv="refresh" content="0; url={INDEX}.html">\n'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", _read)
    app.connect("build-finished", _finish)

"""What `make docs` adds to MkDocs: the files of the top level as pages, and docstrings as Markdown.

README.md is the start page. No file is kept twice: a page is made from its file when the site is built, and
all links are written as they work in a checkout.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TOP = Path(__file__).parent.parent
PAGES: Mapping[str, str] = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.txt",
}
"""The files of the top level, and their places in the site."""

LINK = re.compile(r"\[(?P<text>[^][]*)\]\((?P<path>[\w./-]+)(?P<anchor>#[\w-]+)?\)")
"""A link of Markdown to a file."""

NAME_OF_A_PAGE = re.compile(r"docs/[\w/-]+|[\w/-]+\.md")

SECTION = re.compile(r"^( *)(Shapes|Values|Reduction|Weight|Source):", re.MULTILINE)
"""The beginning of a part of our docstrings that Google's style does not know."""

CODE = re.compile(r"(`[^`]*`)")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the files of the top level."""
    for name, place in PAGES.items():
        files.append(File.generated(config, place, content=(TOP / name).read_text("utf-8")))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site, and show the title of a page instead of the name of its file."""
    here = posixpath.dirname(page.file.src_uri)
    names = PAGES if page.file.src_uri in PAGES.values() else {f"../{name}": PAGES[name] for name in PAGES}

    def in_site(link: re.Match[str]) -> str:
        text, path = link["text"], link["path"].removeprefix("docs/")
        path = names.get(path, path)
        target = files.get_file_from_path(posixpath.normpath(posixpath.join(here, path)))
        if target and target.page and target.page.title and NAME_OF_A_PAGE.fullmatch(text):
            text = target.page.title
        return f"[{text}]({path}{link['anchor'] or ''})"

    return LINK.sub(in_site, markdown)


class HouseStyle(griffe.Extension):
    """Our docstrings as Markdown: `Shapes:` and the like begin paragraphs; `*` and `<` are characters."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Change the docstring of one object."""
        if obj.docstring:
            parts = CODE.split(obj.docstring.value)
            parts[::2] = [part.replace("*", r"\*").replace("<", "&lt;") for part in parts[::2]]
            obj.docstring.value = SECTION.sub(r"\n\1**\2:**", "".join(parts))

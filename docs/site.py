"""mkdocs' hook: the site also has the documents outside `docs/`, the files that documents link, and the commands."""

from __future__ import annotations

import posixpath
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.cli
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    *("README.md", "CHANGELOG.md", "LICENSE", "cluster/*.md", "cluster/*.yaml", "search_spaces/*.yaml"),
    "reports/example*/**/*",
    "reports/findings/**/*",
)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside `docs/` under its path in the repository, and a page of the command line."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def commands() -> str:
    """Return Markdown of every command's help, as typer writes it, with its examples as code. The list of commands is
    left out: it shortens their descriptions, and the page's table of contents has them."""
    sys.path.append(str(ROOT / "platform"))
    import_module("lethe.cli.main")  # adds the commands
    app = import_module("lethe.cli.app")
    command = typer.main.get_command(app.app)
    text: str = typer.cli.get_docs_for_click(obj=command, ctx=typer.Context(command), name=app.PROGRAM)
    text = text.replace("# `lethe`", "# Commands", 1)
    text = re.sub(r"[\n\b]+lethe sweep .*?(?=\n## )", "\n", text, count=1, flags=re.DOTALL)
    return re.sub(r"^(?:\x08\n)?Examples:\n((?:  .*\n)+)", r"**Examples**:\n\n```sh\n\1```\n", text, flags=re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Return a page whose links between `docs/` and the rest of the repository lead to the same files of the site."""
    here = page.file.src_uri
    in_docs = (ROOT / "docs" / here).is_file()
    folder = posixpath.dirname(f"docs/{here}" if in_docs else here)

    def rewritten(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1])).removeprefix("docs/")
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    return LINK.sub(rewritten, markdown)

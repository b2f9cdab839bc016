"""The pages for readers: links, anchors and named files exist, and the version is the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from recbole_diffusion import __version__

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results" / "ml-100k" / "results.md"])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# Python files that a page names as code, by their path in the repository or in the package.
_NAMED_FILE = re.compile(r"`([\w/.-]+\.py)`")


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    wrong = []
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            wrong.append(link)
    folders = (ROOT, ROOT / "recbole_diffusion")
    if page.name != "add_a_model.md":  # its names are of files that the reader is to write
        wrong += [name for name in _NAMED_FILE.findall(text) if not any((folder / name).exists() for folder in folders)]
    assert not wrong


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__

"""Links between documents lead somewhere: to a file or folder that is there, and to a heading that it has."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT
from documents import Document, all_documents

# What a path as code begins with if it is one of this repository.
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"target", ".git", "out"}


def fault(document: Document, link: str) -> str | None:
    """Why a link leads nowhere."""
    url = urlsplit(link)
    if url.scheme or url.netloc:
        is_good = url.scheme in ("https", "mailto") or (url.scheme, url.hostname) == ("http", "127.0.0.1")
        return None if is_good else "is neither https nor a path"
    path = (document.path.parent / unquote(url.path)).resolve() if url.path else document.path
    if not path.is_relative_to(ROOT):
        return "leaves the repository"
    if not path.exists():
        return "is not there"
    if url.fragment and path.suffix == ".md" and url.fragment not in Document(path).anchors:
        return f"has no heading #{url.fragment}"
    return None


@pytest.mark.parametrize("document", all_documents(), ids=lambda document: document.name)
def test_links_lead_somewhere(document: Document) -> None:
    faults = [f"{link} {why}" for link in document.links if (why := fault(document, link))]
    assert not faults


@pytest.mark.parametrize("document", all_documents(), ids=lambda document: document.name)
def test_files_that_are_named_are_there(document: Document) -> None:
    missing = [
        path
        for path in document.mentioned_paths
        if path.split("/")[0] in FOLDERS and not (ROOT / path).exists() and not (document.path.parent / path).exists()
    ]
    assert not missing


def test_what_is_checked(tmp_path: Path) -> None:
    """A link that leads nowhere is found."""
    readme = Document(ROOT / "README.md")
    for link in ["docs/caching.md", "docs/caching.md#cache_dit", "docs", "https://x.org", "http://127.0.0.1:8080"]:
        assert fault(readme, link) is None, link
    for link in ["docs/cashing.md", "docs/caching.md#nothing", "#nothing", "../elsewhere", "http://example.com"]:
        assert fault(readme, link), link

    path = tmp_path / "a.md"
    path.write_text('# A `b`: c, d!\n\n[x](y#z) ![p](q.png)\n\n## Twice\n\n## Twice\n\n<img src="r.png">\n\n`docs/x`\n')
    document = Document(path)
    assert document.anchors == {"a-b-c-d", "twice", "twice-1"}
    assert list(document.links) == ["y#z", "q.png", "r.png"]
    assert list(document.mentioned_paths) == ["docs/x"]

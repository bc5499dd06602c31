"""The README as a package index shows it: links within the repository become addresses.  Called by hatchling.

In the repository links are relative, so that they are right in every clone, branch and fork.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")
HOMEPAGE = re.compile(r'set\(EXTENSION_HOMEPAGE "([^"]+)"\)')


def with_addresses(text: str, home: str) -> str:
    """Markdown whose relative links lead to the main branch of the repository at ``home``."""
    return LINK.sub(lambda m: f"{m[1]}[{m[2]}]({home}/{'raw' if m[1] else 'blob'}/main/{m[3]})", text)


class PackageReadme(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        home = HOMEPAGE.search((root / "CMakeLists.txt").read_text(encoding="utf-8"))
        if home is None:
            raise ValueError("CMakeLists.txt sets no EXTENSION_HOMEPAGE")
        text = (root / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_addresses(text, home[1])}

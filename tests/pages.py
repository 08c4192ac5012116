"""The pages of the documentation, and the files that they show."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = r"((?:[^\n]+\n)+)\n```(python|yaml)\n(.*?)```"  # below a paragraph


def own_files(pages=PAGES):
    """Files that the how-to pages show: each code block below a paragraph that names it."""
    files = {}
    for path in pages:
        for above, language, code in re.findall(BLOCK, path.read_text(), re.DOTALL):
            ending = {"python": "py", "yaml": "yaml"}[language]
            if name := re.search(rf"`([\w/]+\.{ending})`", above):
                files[name[1]] = code
    return files

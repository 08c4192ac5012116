"""What the site adds to the pages in docs/: the API reference, the tables of the reference, and settings of methods."""

import ast
import sys
from pathlib import Path

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import reference  # noqa: E402  # beside this file

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "api": "ssl_lab in Python",
    "methods": "Methods",
    "losses": "Losses",
    "pretext": "Views and masks",
    "encoders": "Encoders",
    "generators": "Generators",
    "data": "Data",
    "evaluation": "Evaluation",
    "tasks": "Fine-tuning tasks",
    "engine": "Engine",
    "generate": "Samples and texts",
    "pictures": "Pictures",
    "export": "Export",
    "runs": "Run directories",
    "report": "Reports",
    "testing": "Checks for tests",
}
SHARED = "Shared vocabulary"


def on_files(files, config):
    """Add a page for each package, and one for the modules at the top."""
    pages = {f"api/{package}.md": page(title, ROOT / "ssl_lab" / package) for package, title in PACKAGES.items()}
    pages["api/shared.md"] = page(SHARED, ROOT / "ssl_lab", deep=False)
    rows = [f"| [{title}]({package}.md) | `ssl_lab.{package}` |" for package, title in PACKAGES.items()]
    pages["api/index.md"] = "\n".join(
        [
            "# API",
            "",
            "Everything that the command line builds is a class with these arguments, and works from plain Python too.",
            "",
            "| | |",
            "|---|---|",
            f"| [{SHARED}](shared.md) | `ssl_lab.types`, `optim`, `heads`, `teacher`, `distributed` |",
            *rows,
        ]
    )
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def page(title, folder, *, deep=True):
    """Markdown that asks mkdocstrings for each module below a folder, headed by what its file says about it."""
    parts = [f"# {title}"]
    for path in sorted(folder.rglob("*.py") if deep else folder.glob("*.py")):
        public = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        if path.name != "__init__.py" and any(not node.name.startswith("_") for node in public):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            parts.append(
                f"## {path.stem}\n\n::: {module}\n    options: {{show_root_heading: false, show_root_toc_entry: false}}"
            )
    return "\n\n".join(parts)


def on_page_markdown(markdown, page, config, files):
    """Fill in the tables of a reference page; add its settings and its class to a method's page."""
    markdown = reference.fill(markdown)
    path = ROOT / "conf/method" / f"{Path(page.file.src_uri).stem}.yaml"
    if not page.file.src_uri.startswith("methods/") or not path.is_file():
        return markdown
    text = path.read_text()
    target = next(line.split()[1] for line in text.splitlines() if line.startswith("_target_:"))
    return f"{markdown}\n\n## All settings\n\nThe class is [`{target.split('.')[-1]}`][{target}].\n\n" + (
        f'```yaml title="conf/method/{path.name}"\n{text}```\n'
    )

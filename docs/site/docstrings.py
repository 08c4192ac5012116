"""Docstrings are written for any reader: their equations and references become Markdown for the site."""

import re
import textwrap

from griffe import Extension


def to_markdown(text):
    """Equations between dollars, code between single backticks, literal blocks indented; the rest as it is."""
    text = re.sub(r"^( *)\.\. math:: *(.*(?:\n\1 +.*)*)", _display, text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r":(?:class|func|meth|data|mod):`~?([^`]+)`", lambda m: f"`{m[1].split('.')[-1]}`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"(?<!//)\barXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"^References:\n((?: +.*\n?)+)", _references, text, flags=re.MULTILINE)


def _references(match):
    """A list; a line of deeper indentation continues the one before."""
    lines = textwrap.dedent(match[1]).strip().splitlines()
    return "**References:**\n\n" + "\n".join(("  " if line.startswith(" ") else "- ") + line.strip() for line in lines)


def _display(match):
    indent, equation = match.groups()
    equation = textwrap.dedent(equation).strip()
    return f"\n{indent}$$\n" + textwrap.indent(equation, indent) + f"\n{indent}$$\n"


class Markdown(Extension):
    """Rewrites each docstring once it is read."""

    def on_instance(self, *, obj, **kwargs):
        """Of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)

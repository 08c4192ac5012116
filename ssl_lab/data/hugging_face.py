"""The library that reads tables and data sets of the Hugging Face hub, of the extra ``data``."""

from __future__ import annotations

from ssl_lab.extras import needed_to

with needed_to("read tables, text files and data sets of the hub"):
    import datasets
    import pyarrow

__all__ = ["datasets", "pyarrow"]

"""Base class of data with text: a tokenizer, which a run keeps, and the length of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerFast

from ssl_lab.data.base import Artifact, DataModule
from ssl_lab.data.text.tokenizer import load_tokenizer, tokenizer_digest
from ssl_lab.modalities.pair import PairSpec
from ssl_lab.types import Spec


@dataclass(kw_only=True, eq=False, repr=False)
class Tokenized(DataModule):
    """Data with text, in rows of so many tokens; subclasses offer the ``tokenizer`` itself under the name of its setting.

    Args:
        tokenizer: Folder or hub identifier of a tokenizer; None to train one on the ``train`` split, or for the one that the
            text was prepared with.
        max_length: Tokens of a row, special tokens included.
    """

    if not TYPE_CHECKING:  # which knows no setting and cached property of one name
        tokenizer: str | None = None
    max_length: int = 128

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: If special tokens leave no room for others.
        """
        super().__post_init__()
        if self.max_length < 3:
            raise ValueError(f"max_length counts the special tokens too, found {self.max_length}. Choose 3 or more.")
        # Where the instance has no value of this name, the cached property of the subclass is read.
        self.tokenizer_name: str | None = vars(self).pop("tokenizer")

    def artifacts(self) -> Mapping[str, Artifact]:
        """The tokenizer."""
        return self.tokenizers()

    def tokenizers(self) -> Mapping[str, PreTrainedTokenizerFast]:
        """By the name of their setting."""
        return {"tokenizer": self.tokenizer}  # type: ignore[attr-defined]

    def check_artifacts(self, run_dir: Path) -> None:
        """Refuse to resume a run whose ids now mean other tokens.

        Raises:
            ValueError: If a tokenizer is not the one in the run directory.
        """
        for name, tokenizer in self.tokenizers().items():
            folder = run_dir / name
            if folder.is_dir() and tokenizer_digest(tokenizer) != tokenizer_digest(load_tokenizer(str(folder))):
                raise ValueError(
                    f"Cannot resume {run_dir}: its data now gives another tokenizer than {folder}, because the text it "
                    f"is trained on has changed. Restore the text, set data.{name}={folder}, or start a new run."
                )

    @classmethod
    def settings_in_run(cls, run_dir: Path, spec: Spec, own: Mapping[str, Any] | None) -> dict[str, Any]:
        """The run's tokenizer, and for other data the length of its texts."""
        settings: dict[str, Any] = {}
        if (run_dir / "tokenizer").is_dir():
            settings["tokenizer"] = str(run_dir / "tokenizer")
            if own is not None:  # a fine-tuned run has a length of its own
                text = spec.text if isinstance(spec, PairSpec) else spec
                settings["max_length"] = own.get("max_length", *text.shape)
        return settings

"""What readers of data have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from ssl_lab.api.given import Given

KINDS = (
    "an array or tensor of images, a list of images, of image files or of texts, a folder or file, a torch Dataset, a "
    "Hugging Face Dataset, a DataModule of ssl_lab, or a name of ssl_lab.list()['data']"
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Arguments given beside the data.

    Attributes:
        labels: Labels; None without.
        image_size: What images are resized to.
    """

    labels: Any = None
    image_size: int | None = None

    def none(self, what: str) -> None:
        """Refuse labels beside data that have their own.

        Raises:
            ValueError: If there are any.
        """
        if self.labels is not None:
            raise ValueError(
                f"Cannot use labels= beside {what}: it says itself which labels it has. Leave labels= out."
            )


def is_a(value: Any, *names: str) -> bool:
    """Whether a value is of a class of this full name, whose module is not imported for that."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in names for kind in type(value).__mro__)


class Reader(ABC):
    """Recognises one kind of data."""

    @abstractmethod
    def takes(self, data: Any) -> bool:
        """Whether it is of this kind; imports nothing slow."""

    @abstractmethod
    def read(self, data: Any, asked: Asked) -> Given:
        """Read it.

        Raises:
            ValueError: If it cannot be read.
        """


def called(value: Any) -> str:
    """What messages call a value: ``an ndarray``."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name.startswith((*'AEIOaeio', 'nd')) else 'a'} {name}"

"""TensorBoard: scalars, pictures, sentences, and features in its projector."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from ssl_lab.engine.logging.adapters import Adapter, Pixels, adapter_of


class TensorBoard(Adapter):
    """Writes all to the event files of Lightning's TensorBoardLogger."""

    logger: TensorBoardLogger

    def image(self, key: str, pixels: Pixels, step: int) -> None:
        """Add an image."""
        self.logger.experiment.add_image(key, pixels, step, dataformats="HWC")

    def sentences(self, key: str, markdown: str, step: int) -> None:
        """Add a text."""
        self.logger.experiment.add_text(key, markdown, step)

    def embedding(self, features: Tensor, labels: Sequence[str], images: Tensor | None, step: int) -> None:
        """Add features with labels and thumbnails for the projector."""
        self.logger.experiment.add_embedding(
            features, metadata=list(labels), label_img=images, tag="features", global_step=step
        )

    def forget_from(self, step: int) -> None:
        """Write the two events that SummaryWriter writes for ``purge_step=``."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        file = self.logger.experiment.file_writer
        file.add_event(Event(step=step, file_version="brain.Event:2"))
        file.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))


adapter_of.register(TensorBoardLogger, TensorBoard)

"""Batch statistics over all ranks, as a Lightning plugin."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import LayerSync, TorchSyncBatchNorm
from torch.nn import Module

from ssl_lab.distributed import refuse_fused_batch_norm, synchronise_batch_norm


class SyncBatchNormLayers(LayerSync):
    """Synchronises batch normalisation with torch's own layers on the GPU and with ours on the CPU."""

    def apply(self, model: Module) -> Module:
        """Replace the layers; called by Lightning once the model is on its device."""
        refuse_fused_batch_norm(model)
        if next(model.parameters()).device.type == "cuda":
            return TorchSyncBatchNorm().apply(model)
        return synchronise_batch_norm(model)

    def revert(self, model: Module) -> Module:
        """Undo the replacement where the layers need a process group."""
        return TorchSyncBatchNorm().revert(model)

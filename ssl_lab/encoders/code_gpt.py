"""GPT-2 over the codes of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from ssl_lab.devices import keep_random_state
from ssl_lab.encoders.image import ImageEncoder
from ssl_lab.layers import Layers
from ssl_lab.modalities.image import ImageSpec
from ssl_lab.types import Batch


class CodeGPT(ImageEncoder):
    """A trained VQ-VAE makes codes of an image; a GPT-2 reads them row by row, each after those before it.

    Features are the mean over positions of a middle layer, normalised as the next block sees it: iGPT's linear probes were
    best there.

    Args:
        spec: The image data it is built for.
        codes: The method with codes, a VQ-VAE trained on such images; it stays as it is.
        embed_dim: Width D of the transformer and of the features.
        depth: Number of blocks; features are read before block ``depth // 2``.
        num_heads: Attention heads of a block.
        dropout: Of embeddings, attention and residuals.

    Raises:
        ValueError: If the method has no codes or was trained on images of another shape, or the width is no multiple of the
            number of heads.

    References:
        Chen et al., Generative Pretraining from Pixels (2020).
        Radford et al., Language Models are Unsupervised Multitask Learners (2019).
    """

    def __init__(
        self,
        spec: ImageSpec,
        *,
        codes: Any,
        embed_dim: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, embed_dim=embed_dim)
        offered = codes.capabilities()
        if not {"codes", "from_codes"} <= offered.keys():
            raise ValueError(
                f"CodeGPT reads codes of images, but a {type(codes).__name__} has none. Set encoder.codes=run:DIR to a run "
                "of method=vq_vae."
            )
        if codes.encoder.spec.shape != spec.shape:
            raise ValueError(
                f"CodeGPT reads codes of images of {spec.shape}, but its {type(codes).__name__} was trained on images "
                f"of {codes.encoder.spec.shape}. Choose encoder.codes and data= of one shape."
            )
        if embed_dim % num_heads:
            raise ValueError(
                f"CodeGPT's width is divided among its heads, found encoder.embed_dim={embed_dim} and "
                f"encoder.num_heads={num_heads}. Choose a multiple."
            )
        self.codes = codes.requires_grad_(False)
        self.num_codes: int = codes.num_codes
        with torch.no_grad():
            image = torch.zeros(1, *spec.shape, dtype=torch.uint8, device=codes.device)
            blank = {"image": image, "index": torch.zeros(1, dtype=torch.int64, device=codes.device)}
            self.map_size = tuple(offered["codes"](blank).shape[1:])
        self.strides = (spec.shape[1] // self.map_size[0],)
        self.gpt = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=self.num_codes + 1,  # the last one begins an image
                n_positions=self.map_size[0] * self.map_size[1] + 1,
                n_embd=embed_dim,
                n_layer=depth,
                n_head=num_heads,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
                resid_pdrop=dropout,
                bos_token_id=self.num_codes,
                eos_token_id=None,
            )
        )
        self.middle = depth // 2

    def codes_of(self, batch: Batch) -> Tensor:
        """Codes of the batch's images, row by row from the upper left, int64 (B, L).

        A VQ-VAE may make pixels black or white by the index of an image. Images without one are all taken for the first.
        """
        index = batch.get("index", torch.zeros(len(batch["image"]), dtype=torch.int64, device=batch["image"].device))
        return self.codes.capabilities()["codes"]({**batch, "index": index}).flatten(1)  # type: ignore[no-any-return]

    def images_of(self, codes: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of codes (B, L)."""
        return self.codes.capabilities()["from_codes"](codes.unflatten(1, self.map_size))  # type: ignore[no-any-return]

    def forward(self, codes: Tensor) -> Tensor:  # type: ignore[override]
        """States (2, B, L, D) of the middle and the last layer, each at the code before, for codes (B, L)."""
        begin = torch.full_like(codes[:, :1], self.num_codes)
        before = torch.cat([begin, codes[:, :-1]], 1)
        transformer: Any = self.gpt.transformer
        outputs = transformer(input_ids=before, use_cache=False, output_hidden_states=True)
        middle = transformer.h[self.middle].ln_1(outputs.hidden_states[self.middle])
        return torch.stack([middle, outputs.last_hidden_state])

    def logits(self, states: Tensor) -> Tensor:
        """Scores (B, L, K) of each code from what :meth:`forward` returned."""
        return self.gpt.lm_head(states[1])[..., : self.num_codes]  # type: ignore[no-any-return]

    def encode(self, x: Tensor) -> Tensor:
        """Features (B, embed_dim) of normalised images (B, C, H, W)."""
        return self.embed({"image": x * self.std + self.mean})

    def embed(self, batch: Batch) -> Tensor:
        """Features of the batch's images, shape (B, embed_dim)."""
        return self.pool(self(self.codes_of(batch)))

    def _grids(self, batch: Batch) -> tuple[Tensor, ...]:
        return (self(self.codes_of(batch))[0].mT.unflatten(2, self.map_size),)

    def pool(self, output: Tensor, *inputs: Tensor) -> Tensor:
        """Mean over positions of the middle layer, (B, D)."""
        return output[0].mean(1)

    def layer_groups(self) -> Layers:
        """Its layers; the VQ-VAE that makes codes is part of the embeddings."""
        return Layers.around(self, self.gpt.transformer.h)  # type: ignore[arg-type]

    def draw(self, num_samples: int, *, seed: int) -> Tensor:
        """Codes (N, L), each drawn given those before it; the global random state stays as it is."""
        device = self.gpt.device
        begin = torch.full((num_samples, 1), self.num_codes, device=device)
        with keep_random_state(device):
            torch.manual_seed(seed)
            drawn = self.gpt.generate(  # type: ignore[operator]
                begin,
                attention_mask=torch.ones_like(begin),
                max_new_tokens=self.map_size[0] * self.map_size[1],
                do_sample=True,
                top_k=0,
                suppress_tokens=[self.num_codes],
            )
        return drawn[:, 1:]  # type: ignore[no-any-return]

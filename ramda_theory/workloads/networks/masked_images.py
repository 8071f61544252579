"""A vision transformer that fills in masked patches (SimMIM), from transformers."""

from __future__ import annotations

from torch import Tensor, nn

from ramda_theory.extras import needs


class MaskedImages(nn.Module):
    """``forward(images, masked)`` is the mean absolute error on the masked patches, sample by sample.

    Parameters
    ----------
    size, patch, channels : int
        Of the images.
    width, layers, heads : int
        Of the transformer; feed-forward layers are four times as wide.
    """

    def __init__(self, size: int, patch: int, channels: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        with needs("workloads"):
            from transformers import ViTConfig, ViTForMaskedImageModeling

        self.size, self.patch, self.channels = size, patch, channels
        self.model = ViTForMaskedImageModeling(
            ViTConfig(
                image_size=size,
                patch_size=patch,
                num_channels=channels,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                encoder_stride=patch,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.size // self.patch) ** 2

    def forward(self, images: Tensor, masked: Tensor) -> Tensor:
        """Images (n, channels, size, size), masked (n, patches) of bool; errors (n,)."""
        filled = self.model(images, bool_masked_pos=masked).reconstruction
        side = self.size // self.patch
        mask = masked.reshape(-1, side, side).repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)
        error = (filled - images).abs().mean(dim=1) * mask
        errors: Tensor = error.sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + 1e-5)
        return errors

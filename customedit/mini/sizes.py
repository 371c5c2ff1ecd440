"""The sizes in which the bundled base can be trained: what each is made of, how long it learns.

``small`` is the one in git, for two CPU cores. ``large`` draws 256 px and wants a GPU. Nothing
reads this table to *use* weights: those carry their ``config.json``, and so does each checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from customedit.mini.loop import Schedule


@dataclass(frozen=True)
class Size:
    """One size of the base.

    side: of a picture in pixels, eight to a latent cell; vae_width and vae_blocks: channels, and
    residual blocks of the encoder from full size down (the decoder's are the same, in reverse);
    unet_widths: channels of each level, all with cross-attention; unet_heads: of each level;
    unet_layers: per level; stages: schedule of each stage, and rows in a step.
    """

    side: int
    vae_width: int
    vae_blocks: tuple[int, int, int, int]
    unet_widths: tuple[int, ...]
    unet_heads: tuple[int, ...]
    unet_layers: int
    stages: Mapping[str, tuple[Schedule, int]]

    @property
    def cells(self) -> int:
        """Latent cells a side."""
        return self.side // 8


_CLIP: Final = Schedule(620, 0.02, 50, 310, adam_only=("embedding", "logit"))
_VAE: Final = Schedule(12000, 0.008, 50, 12000, ema=0.995, adam_only=("encoder.layers.0.weight",))
_DECODER: Final = Schedule(2000, 0.003, 20, 2000, ema=0.99)
_UNET: Final = Schedule(
    24000, 0.008, 100, 24000, ema=0.999, adam_only=("conv_in", "conv_out", "time_embedding")
)
_JUDGE: Final = Schedule(
    1800, 0.02, 20, 1200, ema=0.99, adam_share=0.1, adam_only=("noun", "pattern", "mask.3")
)

SIZES: Final[Mapping[str, Size]] = MappingProxyType(
    {
        "small": Size(
            side=128,
            vae_width=96,
            vae_blocks=(0, 0, 2, 6),
            unet_widths=(96, 192),
            unet_heads=(3, 6),
            unet_layers=1,
            stages={
                "clip": (_CLIP, 128),
                "vae": (_VAE, 8),
                "decoder": (_DECODER, 8),
                "unet": (_UNET, 48),
                "judge": (_JUDGE, 32),
            },
        ),
        "large": Size(
            side=256,
            vae_width=128,
            vae_blocks=(0, 1, 3, 6),
            unet_widths=(128, 256, 320),
            unet_heads=(4, 8, 10),
            unet_layers=1,
            stages={
                "clip": (_CLIP, 256),
                "vae": (_VAE, 32),
                "decoder": (_DECODER, 32),
                "unet": (_UNET, 128),
                "judge": (_JUDGE, 64),
            },
        ),
    }
)
"""The sizes by name."""

SMALL: Final = SIZES["small"]

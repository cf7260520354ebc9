"""Where each family comes from: its paper, and who publishes weights under which licence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    paper: str
    weights: str  # who publishes reference weights
    licence: str  # of those weights


_COCCOMINI = "Coccomini et al., ICIAP 2022, arXiv 2107.02612"
_AUTHORS = "davide-coccomini, *efficient_vit.pth"

# By the name of the class in MODELS.
ORIGINS: dict[str, Origin] = {
    "ViT": Origin("Dosovitskiy et al., ICLR 2021, arXiv 2010.11929", "timm vit_*", "Apache-2.0"),
    "ConViT": Origin(
        "d'Ascoli et al., ICML 2021, arXiv 2103.10697", "timm convit_*.fb_in1k", "Apache-2.0"
    ),
    "CvT": Origin("Wu et al., ICCV 2021, arXiv 2103.15808", "microsoft/cvt-*", "MIT"),
    "CMT": Origin("Guo et al., CVPR 2022, arXiv 2107.06263", "ggjy/CMT.pytorch", "Apache-2.0"),
    "EfficientNetClassifier": Origin(
        "Tan and Le, ICML 2019, arXiv 1905.11946", "lukemelas/EfficientNet-PyTorch", "Apache-2.0"
    ),
    "EfficientViT": Origin(_COCCOMINI, "none for the corrected form", "-"),
    "CrossEfficientViT": Origin(_COCCOMINI, "none for the corrected form", "-"),
    "PublishedEfficientViT": Origin(_COCCOMINI, _AUTHORS, "MIT"),
    "PublishedCrossEfficientViT": Origin(_COCCOMINI, _AUTHORS, "MIT"),
    "Hybrid": Origin("those of its parts", "none", "-"),
}

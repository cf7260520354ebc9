"""Rewrite MTCNN's weights from facenet-pytorch's wheel as the safetensors file this package ships.

    python data/recipes/mtcnn_weights.py forensics/weights/mtcnn/weights.safetensors

The wheel holds three state dicts in torch's pickle-based format, which a scan never reads. The
tensors are copied as they are (float32); a test holds the result equal to the wheel's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import facenet_pytorch
import torch
from safetensors.torch import save_file

folder = Path(facenet_pytorch.__file__).parent / "data"
tensors = {
    f"{stage}.{name}": tensor.contiguous()
    for stage in ("pnet", "rnet", "onet")
    for name, tensor in torch.load(folder / f"{stage}.pt", weights_only=True).items()
}
origin = "facenet-pytorch 2.5.3, MIT, Copyright (c) 2019 Timothy Esler"
save_file(tensors, sys.argv[1], metadata={"origin": origin})

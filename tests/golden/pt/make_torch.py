#!/usr/bin/env python3
"""Regenerates torch.pt: what a real torch.save writes (the file here is from PyTorch 1.13.1, Debian's python3-torch).

    tests/golden/pt/make_torch.py
"""
from pathlib import Path

import torch

whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
torch.save(
    {
        "whole": whole,
        "view": whole[1:3, 2:5],
        "transposed": whole.t(),
        "scalar": torch.tensor(0.1),
        "brain": torch.nn.Parameter(torch.tensor([1.5, -2.0, 0.0], dtype=torch.bfloat16)),
        "empty": torch.zeros(0, 5),
    },
    Path(__file__).parent / "torch.pt",
)

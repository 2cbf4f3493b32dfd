#!/usr/bin/env python3
"""Regenerates this folder from the full golden vectors of the reference implementation.

    pip install numpy safetensors
    tests/golden/shrink.py FULL_GOLDEN_FOLDER

Weights, forward and evaluation vectors are kept whole. Of gradients, trained parameters and EMA every 13th element of
the flattened tensor is kept (all of them up to 256), as `KIND/NAME` in sampled.safetensors; KIND is grads_plain,
grads_recur, after_train or ema.
"""
import shutil
import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file

full, here = Path(sys.argv[1]), Path(__file__).parent
for case in ["tiny", "eleven", "bare", "parallel"]:
    (here / case).mkdir(exist_ok=True)
    for name in ["meta.json", "weights.safetensors", "forward.safetensors", "eval.safetensors"]:
        shutil.copyfile(full / case / name, here / case / name)
    sampled = {}
    for kind in ["grads_plain", "grads_recur", "after_train", "ema"]:
        path = full / case / f"{kind}.safetensors"
        for name, tensor in (load_file(path) if path.exists() else {}).items():
            flat = tensor.reshape(-1)
            sampled[f"{kind}/{name}"] = flat[:: 1 if flat.size <= 256 else 13].copy()
    save_file(sampled, here / case / "sampled.safetensors")
for folder, names in {"gptq": ["gptq.safetensors", "meta.json"], "muon": ["newton_schulz.safetensors"]}.items():
    (here / folder).mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(full / folder / name, here / folder / name)

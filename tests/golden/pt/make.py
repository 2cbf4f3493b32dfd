#!/usr/bin/env python3
"""Regenerates the .pt files of this folder, byte for byte as laid out by torch.save, without PyTorch.

    tests/golden/pt/make.py

A .pt file is a zip archive of stored entries: NAME/data.pkl is a pickle of protocol 2 in which a tensor is
`torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)` and a storage is the persistent
id `("storage", torch.FloatStorage, KEY, "cpu", elements)`, whose values are the entry NAME/data/KEY, little-endian.
Classes of a stand-in `torch` module let Python's own pickler write the same references.

bare.pt: the golden weights of `bare` in half precision, as a training script might keep them: under "model", beside
other things, with the prefix of a compiled module. odd.pt: one tensor for each thing a reader can get wrong.
"""
import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path

here = Path(__file__).parent
torch = types.ModuleType("torch")
torch._utils = types.ModuleType("torch._utils")
sys.modules.update({"torch": torch, "torch._utils": torch._utils})
FORMATS = {"FloatStorage": "f", "HalfStorage": "e", "DoubleStorage": "d", "BFloat16Storage": "H", "LongStorage": "q"}
for name in FORMATS:
    setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
for name in ["_rebuild_tensor_v2", "_rebuild_parameter"]:
    function = lambda *args: None
    function.__module__, function.__name__, function.__qualname__ = "torch._utils", name, name
    setattr(torch._utils, name, function)


class Storage:
    def __init__(self, kind, values):
        self.kind, self.values = kind, values


class Tensor:
    def __init__(self, storage, shape, stride=None, offset=0):
        if stride is None:
            stride, step = [], 1
            for n in reversed(shape):
                stride.insert(0, step)
                step *= n
        self.args = (storage, offset, tuple(shape), tuple(stride), False, collections.OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.args


class Parameter:
    def __init__(self, tensor):
        self.tensor = tensor

    def __reduce__(self):
        return torch._utils._rebuild_parameter, (self.tensor, True, collections.OrderedDict())


def save(path, value):
    storages = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, Storage):
                return None
            if item not in storages:
                storages.append(item)
            return "storage", getattr(torch, item.kind), str(storages.index(item)), "cpu", len(item.values)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    entries = {"data.pkl": buffer.getvalue(), "byteorder": b"little"}
    for i, s in enumerate(storages):
        entries[f"data/{i}"] = struct.pack(f"<{len(s.values)}{FORMATS[s.kind]}", *s.values)
    entries["version"] = b"3\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}", (1980, 1, 1, 0, 0, 0)), data)


raw = (here.parent / "bare/weights.safetensors").read_bytes()
(size,) = struct.unpack("<Q", raw[:8])
model = collections.OrderedDict()
for name, info in json.loads(raw[8 : 8 + size]).items():
    if name != "__metadata__":
        start, end = (8 + size + offset for offset in info["data_offsets"])
        values = struct.unpack(f"<{(end - start) // 4}f", raw[start:end])
        model["_orig_mod." + name] = Parameter(Tensor(Storage("HalfStorage", values), info["shape"]))
save(here / "bare.pt", {"step": 594, "model": model, "args": ["--lr", 0.02, None, True]})

shared = Storage("FloatStorage", [float(i) for i in range(24)])
odd = collections.OrderedDict()
odd["whole"] = Tensor(shared, [4, 6])
odd["view"] = Tensor(shared, [2, 3], [6, 1], 8)
odd["transposed"] = Tensor(shared, [6, 4], [1, 6])
odd["scalar"] = Tensor(Storage("DoubleStorage", [0.1]), [])
odd["brain"] = Tensor(Storage("BFloat16Storage", [0x3FC0, 0xC000, 0x0000]), [3])
odd["empty"] = Tensor(Storage("FloatStorage", []), [0, 5])
save(here / "odd.pt", odd)
save(here / "integers.pt", {"steps": Tensor(Storage("LongStorage", [1, 2]), [2])})

"""Tensors as the bytes of a safetensors file, part by part, so that none is copied on the way to the disk."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from etude.base.errors import StorageError
from etude.base.files import storage, whole_file

_ALIGNMENT = 8
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""The format's name of each type, https://github.com/huggingface/safetensors."""


def encode(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file of tensors on the CPU: a function of names and values alone.

    Written here rather than by the library, whose writer reports a full disk as an error of its own and whose
    metadata changes its order from one process to the next. Raises StorageError for a type the format lacks.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # without it some readers refuse the file
    # The widest types first, so that each tensor lies aligned to its own width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    offset = 0
    for name, tensor in ordered:
        if tensor.dtype not in _NAMES:
            raise StorageError(f"A checkpoint cannot hold {name}: safetensors has no {tensor.dtype}.")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        if tensor.numel():
            yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, durable, in one move."""
    with storage("write", path, needs=sum(tensor.nbytes for tensor in tensors.values())), whole_file(path) as file:
        for part in encode(tensors):
            file.write(part)

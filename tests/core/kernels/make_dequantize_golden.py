"""Writes tests/data/kernels/dequantize.bin: random blocks of every weight type and what
gguf.quants.dequantize of PyPI `gguf` makes of them.

    python make_dequantize_golden.py      (needs: gguf numpy)

The data is random and ours; licence as the project's. Layout, little-endian, one record per type:
    u32 ggml type id, u32 n_values, u32 n_bytes, bytes, f32 values
"""

import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

OUT = pathlib.Path(__file__).parents[2] / "data" / "kernels" / "dequantize.bin"
# Byte offsets of the f16 scales of a block.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}
# Smallest subnormal, largest subnormal, zero, minus zero, largest, infinite.
SPECIAL = np.array([0x0001, 0x03FF, 0x0000, 0x8000, 0x7BFF, 0x7C00], dtype=np.uint16)


def blocks_of(kind: Type, rng: np.random.Generator) -> np.ndarray:
    n_values, n_bytes = GGML_QUANT_SIZES[kind]
    if kind in (Type.F32, Type.F16, Type.BF16):
        values = rng.standard_normal(67).astype(np.float32)
        values[:6] = [0.0, -0.0, 1e-6, -1e-6, 65504.0, np.inf]
        if kind == Type.F32:
            return values.view(np.uint8)
        if kind == Type.F16:
            return values.astype(np.float16).view(np.uint8)
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    n_blocks = 19 if n_values == 32 else 8  # 19: not a whole number of chunks of 8.
    blocks = rng.integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
    for offset in SCALES[kind]:
        scales = (rng.standard_normal(n_blocks) * 0.02).astype(np.float16).view(np.uint16)
        scales[: len(SPECIAL)] = rng.permutation(SPECIAL)
        blocks[:, offset : offset + 2] = scales[:, None].view(np.uint8)
    return blocks.reshape(-1)


def main() -> None:
    rng = np.random.default_rng(20)
    out = b""
    for kind in (Type.F32, Type.F16, Type.BF16, *SCALES):
        raw = blocks_of(kind, rng)
        values = np.asarray(dequantize(raw, kind), dtype=np.float32).reshape(-1)
        out += struct.pack("<III", int(kind), values.size, raw.size)
        out += raw.tobytes() + values.tobytes()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(out)


if __name__ == "__main__":
    main()

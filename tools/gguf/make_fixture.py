"""Writes the file with which pippin-weights compares what it makes of ggml's types, crates/pippin-weights/tests/fixtures/types.gguf.

Run with any Python that has gguf 0.19 (`pip install gguf numpy`):

    python tools/gguf/make_fixture.py

For each type there is a tensor `<type>.weight` of two rows, whose blocks are random bytes with scales that are finite, and
`<type>.expected`, what gguf.quants.dequantize makes of it. It is written by gguf itself, so that it is also a sample of the
files that llama.cpp's tools write, with a value of every type in its metadata.
"""

import pathlib

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGUFValueType
from gguf.quants import dequantize

PATH = pathlib.Path(__file__).parents[2] / "crates/pippin-weights/tests/fixtures/types.gguf"
ROWS, COLUMNS = 2, 512
# Of each type: where its blocks have scales of half precision.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
    "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [], "NVFP4": [],
}  # fmt: skip


def blocks(random: np.random.Generator, name: str) -> np.ndarray:
    """Random blocks; scales of either sign and of every size from subnormal to a few hundred."""
    size, length = GGML_QUANT_SIZES[Type[name]]
    data = random.integers(0, 256, (ROWS, COLUMNS // size, length), np.uint8)
    for at in HALVES[name]:
        exponents = random.integers(-20, 6, data.shape[:2])
        scales = (random.normal(0, 1, data.shape[:2]) * np.exp2(exponents)).astype(np.float16)
        data[..., at : at + 2] = scales[..., None].view(np.uint8)
    if name == "MXFP4":
        # Without the largest code, which is infinity in MLX.
        data[..., 0] = random.integers(0, 255, data.shape[:2])
        data[0, 0, 0], data[0, 1, 0] = 0, 1
    if name == "NVFP4":
        data[..., :4] &= 0x7F
        data[0, 0, :4] = [0, 1, 0x7E, 0x7F]
    return data.reshape(ROWS, -1)


def main() -> None:
    random = np.random.default_rng(2026)
    writer = GGUFWriter(PATH, "fixture")
    for kind in GGUFValueType:
        match kind:
            case GGUFValueType.STRING:
                writer.add_string("value.string", "ü")
            case GGUFValueType.ARRAY:
                writer.add_array("value.array.strings", ["", "a", "ü"])
                writer.add_array("value.array.integers", [1, -2, 3])
                writer.add_array("value.array.floats", [0.5, -1.5])
                writer.add_array("value.array.bools", [True, False])
            case GGUFValueType.BOOL:
                writer.add_bool("value.bool", True)
            case _:
                value = 1.5 if kind.name.startswith("FLOAT") else 100
                writer.add_key_value(f"value.{kind.name.lower()}", value, kind)
    for name in HALVES:
        data = blocks(random, name)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=Type[name])
        writer.add_tensor(f"{name}.expected", dequantize(data, Type[name]).astype(np.float32))
    numbers = random.normal(0, 1, (3, 5)).astype(np.float32)
    writer.add_tensor("F32.weight", numbers)
    writer.add_tensor("F16.weight", numbers.astype(np.float16))
    writer.add_tensor("BF16.weight", (numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8), raw_dtype=Type.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()

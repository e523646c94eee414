"""Writes the file with which pippin-weights compares its quantization: crates/pippin-weights/tests/fixtures/affine.safetensors.

Run with any Python that has mlx (`pip install "mlx[cpu]"` does on Linux):

    python tools/quantization/make_fixture.py

The file holds, for each dtype, an input matrix `<dtype>.input` of 2 rows and 128 columns, and for each dtype, number of bits and group size
what mlx.core makes of it: `b<bits>g<group>.<dtype>.weight`, `.scales` and `.biases` from mlx.core.quantize, `.dense` from mlx.core.dequantize.
It is written by mlx itself, so that it is also a sample of the files mlx writes.
"""

import pathlib
import struct

import mlx.core as mx
import numpy as np

FIXTURE = pathlib.Path(__file__).parents[2] / "crates/pippin-weights/tests/fixtures/affine.safetensors"
DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
COLUMNS = 128


def inputs() -> np.ndarray:
    """Row 0: usual weights, then weights with outliers. Row 1, in groups of 32: zeros, a constant, negative and tiny values."""
    random = np.random.default_rng(2026)
    values = random.normal(0, 0.05, (2, COLUMNS))
    values[0, 64:] *= random.lognormal(0, 1.5, 64)
    values[1, :32] = 0
    values[1, 32:64] = 0.3
    values[1, 64:96] = -0.5 - random.random(32)
    values[1, 96:] = random.normal(0, 1e-6, 32)
    return values.astype(np.float32)


def main() -> None:
    mx.set_default_device(mx.cpu)
    tensors = {}
    for name, dtype in DTYPES.items():
        matrix = mx.array(inputs()).astype(dtype)
        tensors[f"{name}.input"] = matrix
        for bits in (2, 3, 4, 5, 6, 8):
            for group_size in (32, 64, 128):
                weight, scales, biases = mx.quantize(matrix, group_size=group_size, bits=bits)
                dense = mx.dequantize(weight, scales, biases, group_size=group_size, bits=bits)
                path = f"b{bits}g{group_size}.{name}"
                tensors |= {f"{path}.weight": weight, f"{path}.scales": scales, f"{path}.biases": biases, f"{path}.dense": dense}
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    # mlx does not pad headers: make this one odd, as half of all headers are, so that the tensors are not aligned.
    version = mx.__version__
    for padding in ("", " "):
        mx.save_safetensors(str(FIXTURE), tensors, {"format": "mlx", "mlx_version": version + padding})
        if struct.unpack("<Q", FIXTURE.read_bytes()[:8])[0] % 2:
            break
    print(f"{FIXTURE}: {FIXTURE.stat().st_size} bytes, mlx {version}")


if __name__ == "__main__":
    main()

"""Writes the files with which pippin-weights compares its quantization, in crates/pippin-weights/tests/fixtures.

Run with any Python that has mlx (`pip install "mlx[cpu]"` does on Linux):

    python tools/quantization/make_fixture.py

affine.safetensors holds, for each dtype, an input matrix `<dtype>.input` of 2 rows and 128 columns, and for each dtype, number of bits and group size
what mlx.core makes of it: `b<bits>g<group>.<dtype>.weight`, `.scales` and `.biases` from mlx.core.quantize, `.dense` from mlx.core.dequantize.
It is written by mlx itself, so that it is also a sample of the files mlx writes.

minifloat.safetensors does so for the modes mxfp4, mxfp8 and nvfp4, in two parts:

- For each mode and dtype, `<mode>.<dtype>.weight` and `.scales` are what mlx.core.quantize makes of `<dtype>.input`, 4 rows of 128 columns, and
  `.dense` is what mlx.core.dequantize makes of them (bf16 for every mode: their scales do not say).
- For each mode, `<mode>.codes.weight` and `.scales` together hold every element code with each of SCALE_CODES, and `.f32` and `.bf16` are what
  mlx.core.dequantize makes of that, reduced to bits (`u32` and `u16`), with NaN as 0x7fc00000 and 0x7fc0: which NaN mlx returns depends on the
  machine.
"""

import pathlib
import struct

import mlx.core as mx
import numpy as np

FIXTURES = pathlib.Path(__file__).parents[2] / "crates/pippin-weights/tests/fixtures"
DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
COLUMNS = 128
# Zero, subnormals, one, NaN and infinity, powers that overflow and underflow with some elements: as E8M0 and as E4M3.
SCALE_CODES = np.array([0, 1, 2, 3, 7, 8, 9, 63, 118, 119, 126, 127, 128, 129, 135, 136, 200, *range(245, 256)], np.uint8)


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


def minifloat_inputs() -> np.ndarray:
    """Usual weights, outliers, ties between codes, extremes of scales and zeros of both signs, the last two in groups of 16."""
    random = np.random.default_rng(2027)
    values = np.zeros((4, COLUMNS))
    values[0] = random.normal(0, 0.05, COLUMNS)
    values[1] = random.normal(0, 0.05, COLUMNS) * random.lognormal(0, 1.5, COLUMNS)
    # With the scale 1, which 6 and 448 give: all multiples of 1/4 up to 6, and the E4M3 numbers with their midpoints from 32 on.
    values[2, :25] = np.arange(25) / 4
    values[2, 32:57] = -np.arange(25) / 4
    e4m3 = [2.0**exponent * (16 + sixteenths) / 16 for exponent in (5, 6, 7, 8) for sixteenths in range(16)]
    values[2, 64:124] = e4m3[: 4 * 16 - 4]
    values[2, 95] = values[2, 127] = -448
    # Just below, at and just above a power of two times 6 and 448: the largest value decides the scale.
    for group, largest in enumerate((6 - 2**-5, 6 + 2**-5, 448 - 2, 448 + 2)):
        start = 16 * group
        values[3, start : start + 16] = random.uniform(-largest, largest, 16)
        values[3, start] = largest
    values[3, 64:80] = -0.0
    values[3, 80:96] = np.linspace(-2e-3, 2e-3, 16)  # nvfp4: a scale of zero
    values[3, 96:112] = np.linspace(-20000, 20000, 16)  # nvfp4: saturated
    values[3, 112:] = random.normal(0, 1e-6, 16)
    return values.astype(np.float32)


def affine_tensors() -> dict[str, mx.array]:
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
    return tensors


def all_codes(mode: str) -> tuple[mx.array, mx.array]:
    """A matrix with a row for each scale code: in it every element code (of four bits: twice)."""
    codes = np.arange(256, dtype=np.uint8) if mode == "mxfp8" else np.tile(np.array([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE], np.uint8), 2)
    weight = np.tile(codes, (len(SCALE_CODES), 1)).view(np.uint32)
    groups = {"mxfp4": 1, "mxfp8": 8, "nvfp4": 2}[mode]
    return mx.array(weight), mx.array(np.repeat(SCALE_CODES[:, None], groups, axis=1))


def bits_of(values: mx.array) -> mx.array:
    unsigned, nan = (mx.uint32, 0x7FC00000) if values.dtype == mx.float32 else (mx.uint16, 0x7FC0)
    return mx.where(mx.isnan(values), mx.array(nan, unsigned), values.view(unsigned))


def minifloat_tensors() -> dict[str, mx.array]:
    tensors = {f"{name}.input": mx.array(minifloat_inputs()).astype(dtype) for name, dtype in DTYPES.items()}
    for mode in ("mxfp4", "mxfp8", "nvfp4"):
        for name in DTYPES:
            weight, scales = mx.quantize(tensors[f"{name}.input"], mode=mode)
            path = f"{mode}.{name}"
            tensors |= {f"{path}.weight": weight, f"{path}.scales": scales, f"{path}.dense": mx.dequantize(weight, scales, mode=mode)}
        weight, scales = all_codes(mode)
        tensors |= {f"{mode}.codes.weight": weight, f"{mode}.codes.scales": scales}
        for name in ("f32", "bf16"):
            tensors[f"{mode}.codes.{name}"] = bits_of(mx.dequantize(weight, scales, mode=mode, dtype=DTYPES[name]))
    return tensors


def write(name: str, tensors: dict[str, mx.array]) -> None:
    path = FIXTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # mlx does not pad headers: make this one odd, as half of all headers are, so that the tensors are not aligned.
    version = mx.__version__
    for padding in ("", " "):
        mx.save_safetensors(str(path), tensors, {"format": "mlx", "mlx_version": version + padding})
        if struct.unpack("<Q", path.read_bytes()[:8])[0] % 2:
            break
    print(f"{path}: {path.stat().st_size} bytes, mlx {version}")


def main() -> None:
    mx.set_default_device(mx.cpu)
    write("affine.safetensors", affine_tensors())
    write("minifloat.safetensors", minifloat_tensors())


if __name__ == "__main__":
    main()

"""Tiny random weights that follow from a tensor's name, so that golden tests store expected results only.

The same generator in Rust is `pippin_models::testing` (crates/pippin-models/src/testing.rs); the two must agree bit for bit.

A tensor's values come from one stream of 64-bit numbers:

    seed   = FNV-1a-64("{salt}/{name}")
    z[i]   = SplitMix64's output number i for that seed, i = 0, 1, 2, ...
    u[i]   = (z[i] >> 40) / 2^23 - 1            exact in f32, uniform in [-1, 1)

and its values are, computed in f32 with constants that are computed in f64 and rounded once:

    packed words (u32)      z[i] >> 32
    scales [o, k / group]   s[i] = base * (1 + u[i] / 4), negative for odd i
                            base = gain * sqrt(12 / (4^bits - 1) / k), which gives weights of deviation gain / sqrt(k)
    biases [o, k / group]   -(s[i] * (2^bits - 1) / 2), of the scales' stream, so that weights have mean zero
    E4M3 elements           the bytes of the packed words with both upper exponent bits set, which makes them 32 or more (otherwise
                            a few large ones would be all that counts), and with the code of NaN (all ones but the sign) made even
    E8M0 scales (u8)        127 + round(e) - 1 + (z[i] >> 40) mod 3, where e = log2(gain / sqrt(k) / rms)
    E4M3 scales (u8)        round(8 * (e + 7)) - 4 + (z[i] >> 40) mod 9
                            rms is that of the elements: 2.926 for E2M1, 214.1 for these E4M3; round(x) is floor(x + 1/2), in f64
    norm weights            1 + u[i] / 4
    matrices [o, k]         u[i] * (gain * sqrt(3 / k))
    bias vectors            u[i] / 2

`gain` is 2 for query, key and attention output projections (which makes attention sharp enough to matter) and 1 otherwise.
Values stored as bf16 are rounded to nearest even.
"""

import numpy as np

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def stream(salt, name, count):
    """The first `count` outputs of SplitMix64 seeded with the hash of salt and name."""
    with np.errstate(over="ignore"):
        state = np.uint64(fnv1a(f"{salt}/{name}")) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA)
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(salt, name, count):
    """Values in [-1, 1), exact in f32."""
    return (stream(salt, name, count) >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def gain(path):
    return 2.0 if path.endswith(("q_proj", "k_proj", "o_proj")) else 1.0


def vector(salt, name, length):
    """A norm's weight or a linear layer's bias."""
    u = uniform(salt, name, length)
    return u / np.float32(2) if name.endswith(".bias") else np.float32(1) + u / np.float32(4)


def matrix(salt, path, rows, cols):
    """A dense matrix."""
    amplitude = np.float32(gain(path) * np.sqrt(3.0 / cols))
    return (uniform(salt, f"{path}.weight", rows * cols) * amplitude).reshape(rows, cols)


def quantized(salt, path, rows, cols, bits, group_size):
    """Packed words, scales and biases of a quantized matrix."""
    words = cols * bits // 32
    packed = (stream(salt, f"{path}.weight", rows * words) >> np.uint64(32)).astype(np.uint32).reshape(rows, words)
    groups = cols // group_size
    base = np.float32(gain(path) * np.sqrt(12.0 / (4.0**bits - 1.0) / cols))
    scales = base * (np.float32(1) + uniform(salt, f"{path}.scales", rows * groups) / np.float32(4))
    scales[1::2] *= np.float32(-1)
    biases = -(scales * np.float32((2.0**bits - 1.0) / 2.0))
    return packed, scales.reshape(rows, groups), biases.reshape(rows, groups)


# The root of the mean square of the elements.
RMS = {"mxfp4": 2.926, "mxfp8": 214.1, "nvfp4": 2.926}


def quantized_minifloat(salt, path, rows, cols, mode, bits, group_size):
    """Packed words and scales of a matrix of mxfp4, mxfp8 or nvfp4."""
    words = cols * bits // 32
    packed = (stream(salt, f"{path}.weight", rows * words) >> np.uint64(32)).astype(np.uint32)
    if mode == "mxfp8":
        codes = packed.view(np.uint8)
        codes |= 0x60
        codes[codes & 0x7F == 0x7F] &= 0xFE
    exponent = np.log2(gain(path) / np.sqrt(cols) / RMS[mode])
    base, spread = (np.floor(8 * (exponent + 7) + 0.5) - 4, 9) if mode == "nvfp4" else (127 + np.floor(exponent + 0.5) - 1, 3)
    groups = cols // group_size
    offsets = (stream(salt, f"{path}.scales", rows * groups) >> np.uint64(40)) % np.uint64(spread)
    scales = (int(base) + offsets.astype(np.int64)).astype(np.uint8)
    return packed.reshape(rows, words), scales.reshape(rows, groups)

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

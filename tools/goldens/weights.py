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
    global scales [e]       2688 * (1 + u[i] / 4), of experts whose entry in the configuration says that they have them
    matrices [o, k]         u[i] * (gain * sqrt(3 / k))
    stacks [e, o, k]        e matrices (of experts or of heads), as one matrix of e * o rows, quantized or not
    convolutions [c, w, 1]  u[i] * sqrt(3 / w), of depthwise kernels; generally w is the product of all dimensions but the first
    vectors                 by the last component of the tensor's name:
                                ends in "bias"            u[i] / 2       dt_bias, e_score_correction_bias, input_gate_bias too
                                sinks, r_k                u[i] / 2
                                x_r x_w x_k x_v x_a x_g   1 / 2 + u[i] / 2       interpolate with the token before
                                signs                     1, or -1 where u[i] is negative
                                A_log                     2 * u[i] - 2           states that last for many tokens
                                recurrent_param           2 * u[i] - 4           likewise
                                any other                 1 + u[i] / 4           norm weights, D, ...

A vector is whatever is neither matrix, stack nor convolution, whether it is stored in one dimension or not ([e, o] are the biases of
a stack, [heads, width] per-head norms, [1, 1, width] a bare factor); values are in row-major order.

`gain` follows from the last component of the module's path (the tensor's name less `.weight`, if it ends so; `dense` is only that of
attention in all models that have it):

    2   q_proj, k_proj, o_proj, qkv_proj, query_key_value, dense, q_b_proj, kv_a_proj_with_mqa, embed_q (which makes attention sharp
        enough to matter), out_proj, linear_out (outputs of other mixers); Wqkv, att_proj, c_attn, wqkv, attn_out, wo (attention
        under other names)
    2   gate_proj and up_proj that are stacks (experts)
    32  modality_router (its inputs are divided by their width)
    1   any other

Values stored as bf16 are rounded to nearest even.
"""

import math

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


GAINS = {
    "q_proj": 2.0, "k_proj": 2.0, "o_proj": 2.0, "qkv_proj": 2.0, "query_key_value": 2.0, "dense": 2.0, "q_b_proj": 2.0,
    "kv_a_proj_with_mqa": 2.0, "embed_q": 2.0, "out_proj": 2.0, "linear_out": 2.0, "modality_router": 32.0,
    "Wqkv": 2.0, "att_proj": 2.0, "attn_out": 2.0, "c_attn": 2.0, "wqkv": 2.0, "wo": 2.0,
}
GAINS_OF_STACKS = {"gate_proj": 2.0, "up_proj": 2.0}


def last(name):
    return name.rpartition(".")[2]


def gain(path, shape):
    name = last(path)
    return GAINS.get(name, GAINS_OF_STACKS.get(name, 1.0) if len(shape) == 3 else 1.0)


def vector(salt, name, shape):
    """Norm weights, biases and other parameters that are no matrices."""
    u = uniform(salt, name, math.prod(shape)).reshape(shape)
    match last(name):
        case kind if kind.endswith("bias") or kind in ("sinks", "r_k"):
            return u / np.float32(2)
        case "x_r" | "x_w" | "x_k" | "x_v" | "x_a" | "x_g":
            return np.float32(0.5) + u / np.float32(2)
        case "signs":
            return np.where(u < 0, np.float32(-1), np.float32(1))
        case "A_log":
            return u * np.float32(2) - np.float32(2)
        case "recurrent_param":
            return u * np.float32(2) - np.float32(4)
        case _:
            return np.float32(1) + u / np.float32(4)


def matrix(salt, name, shape):
    """A dense matrix, or a stack of them."""
    amplitude = np.float32(gain(name.removesuffix(".weight"), shape) * np.sqrt(3.0 / shape[-1]))
    return uniform(salt, name, math.prod(shape)).reshape(shape) * amplitude


def convolution(salt, name, shape):
    """The kernels of a depthwise convolution."""
    return uniform(salt, name, math.prod(shape)).reshape(shape) * np.float32(np.sqrt(3.0 / math.prod(shape[1:])))


def quantized(salt, path, shape, bits, group_size):
    """Packed words, scales and biases of a quantized matrix or stack."""
    *outer, cols = shape
    rows = math.prod(outer)
    words = cols * bits // 32
    packed = (stream(salt, f"{path}.weight", rows * words) >> np.uint64(32)).astype(np.uint32)
    groups = cols // group_size
    base = np.float32(gain(path, shape) * np.sqrt(12.0 / (4.0**bits - 1.0) / cols))
    scales = base * (np.float32(1) + uniform(salt, f"{path}.scales", rows * groups) / np.float32(4))
    scales[1::2] *= np.float32(-1)
    biases = -(scales * np.float32((2.0**bits - 1.0) / 2.0))
    return packed.reshape(*outer, words), scales.reshape(*outer, groups), biases.reshape(*outer, groups)


def global_scales(salt, path, count):
    """The largest weight of each expert, of which the factor on its weights is made."""
    return (np.float32(1) + uniform(salt, f"{path}.global_scale", count) / np.float32(4)) * np.float32(2688)


# The root of the mean square of the elements.
RMS = {"mxfp4": 2.926, "mxfp8": 214.1, "nvfp4": 2.926}


def quantized_minifloat(salt, path, shape, mode, bits, group_size):
    """Packed words and scales of a matrix or stack of mxfp4, mxfp8 or nvfp4."""
    *outer, cols = shape
    rows = math.prod(outer)
    words = cols * bits // 32
    packed = (stream(salt, f"{path}.weight", rows * words) >> np.uint64(32)).astype(np.uint32)
    if mode == "mxfp8":
        codes = packed.view(np.uint8)
        codes |= 0x60
        codes[codes & 0x7F == 0x7F] &= 0xFE
    exponent = np.log2(gain(path, shape) / np.sqrt(cols) / RMS[mode])
    base, spread = (np.floor(8 * (exponent + 7) + 0.5) - 4, 9) if mode == "nvfp4" else (127 + np.floor(exponent + 0.5) - 1, 3)
    groups = cols // group_size
    offsets = (stream(salt, f"{path}.scales", rows * groups) >> np.uint64(40)) % np.uint64(spread)
    scales = (int(base) + offsets.astype(np.int64)).astype(np.uint8)
    return packed.reshape(*outer, words), scales.reshape(*outer, groups)

"""Writes crates/pippin-weights/tests/fixtures/formats.safetensors: weights as other tools quantize them, and what mlx-lm makes of them.

    pip install mlx-lm==0.32.2 'mlx[cpu]' numpy
    python tools/quantization/make_formats.py

A tensor `<case>/in/<name>` is one of a checkpoint, and `<case>/out/<name>` one that mlx-lm makes of it. Its own functions are called:
`_transform_awq_weights`, the `sanitize` of the families that have FP8 or compressed-tensors weights, and `_repack` of deepseek_v41. What mlx-lm
refuses or misreads (GPTQ's order, eight bits, groups over 128) is packed and unpacked here by its definition, element by element. 8-bit floats are stored
as U8; the test gives them their type.
"""

import pathlib
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
from mlx_lm.models import deepseek_v3, deepseek_v41, mistral4
from mlx_lm.utils import _transform_awq_weights

FIXTURE = pathlib.Path(__file__).parents[2] / "crates/pippin-weights/tests/fixtures/formats.safetensors"
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # which output is in each field of a word
random = np.random.default_rng(2028)


def words(*shape):
    return random.integers(0, 1 << 32, shape, dtype=np.uint32).view(np.int32)


def scales(*shape, dtype=np.float16):
    return (random.normal(0, 0.01, shape)).astype(dtype)


def codes(*shape):
    """E4M3 codes, none of them NaN."""
    return random.integers(0, 0x7F, shape, dtype=np.uint8) | (random.integers(0, 2, shape, dtype=np.uint8) << 7)


def arrays(tensors):
    return {name: value if isinstance(value, mx.array) else mx.array(value) for name, value in tensors.items()}


def awq(tensors, **section):
    out, _ = _transform_awq_weights(arrays(tensors), {"bits": 4, **section})
    return tensors, out


def pack(values, bits):
    """Along the last axis, lowest bits first."""
    values = values.reshape(*values.shape[:-1], -1, 32 // bits).astype(np.uint64)
    return (values << (np.arange(32 // bits, dtype=np.uint64) * np.uint64(bits))).sum(-1).astype(np.uint32)


def gptq(bits, inputs, outputs, group, size, offset, zeros=True):
    q = random.integers(0, 1 << bits, (inputs, outputs))
    z = random.integers(offset, 1 << bits, (inputs // group, outputs)) if zeros else np.full((inputs // group, outputs), 1 << (bits - 1))
    s = scales(inputs // group, outputs)
    tensors = {"m.qweight": pack(q.T, bits).T.view(np.int32).copy(), "m.scales": s, "m.g_idx": (np.arange(inputs) // group).astype(np.int32)}
    if zeros:
        tensors["m.qzeros"] = pack(z - offset, bits).view(np.int32)
    biases = (-z.astype(np.float32) * s.astype(np.float32)).astype(np.float16)
    repeat = group // size
    return tensors, {"m.weight": pack(q.T, bits), "m.scales": s.T.repeat(repeat, 1), "m.biases": biases.T.repeat(repeat, 1)}


def sanitized(module, tensors):
    """By a family's own step, of a model without layers."""
    model = SimpleNamespace(args=SimpleNamespace(num_hidden_layers=0, tie_word_embeddings=False, n_routed_experts=0))
    return tensors, module.Model.sanitize(model, arrays(tensors))


def repacked(weight, scale):
    out = deepseek_v41._repack(mx.array(weight), mx.array(scale))
    return {"m.weight": weight, "m.weight_scale_inv": scale}, {"m.weight": out[0], "m.scales": out[1]}


def bitnet(rows, columns, scale, divides, group):
    """Ternary weights, packed and read as the kernel of mlx-lm's `bitlinear_layers` reads them (which runs on Metal only)."""
    q = random.integers(0, 3, (rows, columns)).astype(np.uint8)
    packed = sum(part << (2 * i) for i, part in enumerate(np.split(q, 4)))
    given = {"m.weight": packed, "m.weight_scale": scale}
    factor = 1 / scale.astype(mx.float32) if divides else scale
    scales = mx.broadcast_to(factor, (rows, columns // group))
    return given, {"m.weight": pack(q, 2), "m.scales": scales, "m.biases": -scales}


def bf16(values):
    return mx.array(values).astype(mx.bfloat16)


def main():
    int4 = {"m.weight_packed": words(6, 16), "m.weight_scale": bf16(scales(6, 4, dtype=np.float32)), "m.weight_shape": np.array([6, 128])}
    cases = {
        "awq": awq({"m.qweight": words(64, 2), "m.qzeros": words(2, 2), "m.scales": scales(2, 16), "n.weight": scales(3, 4)}),
        "awq-symmetric": awq({"m.qweight": words(128, 1), "m.scales": scales(1, 8)}),
        "gptq": gptq(4, 64, 8, 32, 32, 1),
        "gptq-v2": gptq(4, 128, 16, 64, 64, 0),
        "gptq-8": gptq(8, 64, 4, 64, 64, 1),
        "gptq-2-wide": gptq(2, 512, 16, 256, 128, 1, zeros=False),
        "compressed": sanitized(deepseek_v3, int4),
        "fp8": sanitized(deepseek_v3, {"m.weight": codes(130, 200), "m.weight_scale_inv": scales(2, 2, dtype=np.float32)}),
        "fp8-bf16": sanitized(deepseek_v3, {"m.weight": codes(128, 128), "m.weight_scale_inv": bf16(scales(1, 1, dtype=np.float32))}),
        "fp8-whole": sanitized(mistral4, {"m.weight": codes(5, 6), "m.weight_scale_inv": np.array(0.37, np.float32), "m.activation_scale": np.array(1.5)}),
        "fp8-stack": sanitized(mistral4, {"e.down_proj": codes(3, 4, 6), "e.down_proj_scale_inv": scales(3, 1, 1, dtype=np.float32)}),
        "mxfp8": repacked(codes(40, 64), (2.0 ** random.integers(-20, 20, (2, 2))).astype(np.float32)),
        "bitnet": bitnet(12, 96, bf16([1.21875]), False, 32),
        "bitnet-divided": bitnet(8, 256, bf16([1.21875]), True, 128),
    }
    tensors = {}
    for case, (given, made) in cases.items():
        tensors |= {f"{case}/in/{name}": value for name, value in arrays(given).items()}
        tensors |= {f"{case}/out/{name}": value for name, value in arrays(made).items()}
    mx.save_safetensors(str(FIXTURE), {name: mx.contiguous(value) for name, value in tensors.items()})
    print(f"{FIXTURE.name}: {len(cases)} cases, {FIXTURE.stat().st_size} bytes")


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    main()

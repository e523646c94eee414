"""Writes the MLX model folder from a checkpoint.

    python export.py --checkpoint build/run/checkpoint.pt --tokenizer build/tokenizer --out ../../models/pippin-nano-4bit

Needs only numpy (and torch to read the checkpoint). `--verify` checks a
written folder against mlx.core.quantize and mlx.core.dequantize, bit by bit.
"""

import argparse
import json
import os
import shutil
import struct
import sys

import numpy as np

GROUP, BITS = 64, 4
BASE = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "hidden_act": "silu",
    "initializer_range": 0.02, "mlp_bias": False, "model_type": "llama", "pretraining_tp": 1, "rope_scaling": None, "rope_traditional": False,
    "tie_word_embeddings": True, "torch_dtype": "float16", "use_cache": True,
}


def quantize(weight, rounded=True):
    """MLX's affine quantization in numpy: (codes, scales, biases) as float32.

    `rounded` rounds scales and biases to float16 before the codes are chosen,
    as in training; without it this is mlx.core.quantize of a float32 array.
    """
    f = np.float32
    groups = weight.astype(f).reshape(weight.shape[0], -1, GROUP)
    high, low = groups.max(-1, keepdims=True), groups.min(-1, keepdims=True)
    scale = np.maximum((high - low) / f(2**BITS - 1), f(1e-7))
    low_wins = np.abs(low) > np.abs(high)
    scale = np.where(low_wins, scale, -scale)
    edge = np.where(low_wins, low, high)
    q0 = np.rint(edge / scale)
    scale = np.where(q0 != 0, edge / np.where(q0 != 0, q0, f(1)), scale)
    bias = np.where(q0 != 0, edge, f(0))
    if rounded:
        scale, bias = scale.astype(np.float16).astype(f), bias.astype(np.float16).astype(f)
    codes = np.clip(np.rint((groups - bias) / scale), 0, 2**BITS - 1).astype(np.uint32)
    return codes.reshape(weight.shape), scale[..., 0], bias[..., 0]


def pack(codes):
    """Eight codes in a u32, the first in the low nibble."""
    parts = codes.reshape(codes.shape[0], -1, 8)
    return (parts << (np.arange(8, dtype=np.uint32) * BITS)).sum(-1, dtype=np.uint32)


def unpack(packed):
    return ((packed[..., None] >> (np.arange(8, dtype=np.uint32) * BITS)) & 15).reshape(packed.shape[0], -1)


def save_safetensors(path, tensors):
    names = {"uint32": "U32", "float16": "F16", "float32": "F32"}
    header, offset = {"__metadata__": {"format": "mlx"}}, 0
    for name in sorted(tensors):
        t = tensors[name]
        header[name] = {"dtype": names[str(t.dtype)], "shape": list(t.shape), "data_offsets": [offset, offset + t.nbytes]}
        offset += t.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(raw)) + raw)
        for name in sorted(tensors):
            f.write(np.ascontiguousarray(tensors[name]).tobytes())


def load_safetensors(path):
    dtypes = {"U32": np.uint32, "F16": np.float16, "F32": np.float32}
    with open(path, "rb") as f:
        raw = f.read()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    header.pop("__metadata__", None)
    return {k: np.frombuffer(raw, dtypes[v["dtype"]], count=int(np.prod(v["shape"])), offset=8 + n + v["data_offsets"][0]).reshape(v["shape"]) for k, v in header.items()}


def dequantized(folder):
    """name -> float32 weights of a written folder."""
    tensors = load_safetensors(os.path.join(folder, "model.safetensors"))
    out = {}
    for name, t in tensors.items():
        base = name[:-len(".weight")]
        if name.endswith(".weight") and base + ".scales" in tensors:
            s, b = tensors[base + ".scales"].astype(np.float32), tensors[base + ".biases"].astype(np.float32)
            q = unpack(t).reshape(*s.shape, GROUP)
            out[name] = (q * s[..., None] + b[..., None]).reshape(t.shape[0], -1).astype(np.float32)
        elif name.endswith(".weight"):
            out[name] = t.astype(np.float32)
    return out


def export(checkpoint, tokenizer, out):
    import torch
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    config = state["config"]
    tensors = {}
    for name, w in state["model"].items():
        w = w.float().numpy()
        if w.ndim == 2:
            codes, scale, bias = quantize(w)
            base = name[:-len(".weight")]
            tensors[name] = pack(codes)
            # All are float16 values. Stored as float32 at the embedding, they make MLX compute in float32 throughout, so that greedy
            # text can be compared between engines without rounding deciding close calls.
            dtype = np.float32 if "embed" in name else np.float16
            tensors[base + ".scales"], tensors[base + ".biases"] = scale.astype(dtype), bias.astype(dtype)
        else:
            tensors[name] = w.astype(np.float16)
    with open(os.path.join(tokenizer, "tokenizer.json")) as f:
        added = {x["content"]: x["id"] for x in json.load(f)["added_tokens"]}
    quantization = {"group_size": GROUP, "bits": BITS, "mode": "affine"}
    eos, pad = added["<|im_end|>"], added["<|endoftext|>"]
    os.makedirs(out, exist_ok=True)

    def put(name, obj):
        path = os.path.join(out, name)
        with open(path + ".tmp", "w") as f:
            json.dump(obj, f, indent=4, ensure_ascii=False)
            f.write("\n")
        os.replace(path + ".tmp", path)

    put("config.json", dict(sorted({**BASE, **config, "eos_token_id": eos, "pad_token_id": pad, "quantization": quantization, "quantization_config": quantization}.items())))
    put("generation_config.json", {"do_sample": False, "eos_token_id": [eos, pad], "pad_token_id": pad, "max_length": 2048})
    save_safetensors(os.path.join(out, "model.safetensors.tmp"), tensors)
    os.replace(os.path.join(out, "model.safetensors.tmp"), os.path.join(out, "model.safetensors"))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(os.path.join(tokenizer, name), os.path.join(out, name + ".tmp"))
        os.replace(os.path.join(out, name + ".tmp"), os.path.join(out, name))
    print({k: v for k, v in state.items() if k not in ("model", "log")})


def verify(folder):
    """The folder against MLX itself."""
    import mlx.core as mx
    mx.set_default_device(mx.cpu)
    loaded = mx.load(os.path.join(folder, "model.safetensors"))
    raw, count = load_safetensors(os.path.join(folder, "model.safetensors")), 0
    for name, w in dequantized(folder).items():
        base = name[:-len(".weight")]
        if base + ".scales" not in raw:
            continue
        theirs = mx.dequantize(loaded[name], loaded[base + ".scales"], loaded[base + ".biases"], group_size=GROUP, bits=BITS)
        s, b = raw[base + ".scales"], raw[base + ".biases"]
        ours = (unpack(raw[name]).reshape(*s.shape, GROUP).astype(s.dtype) * s[..., None] + b[..., None]).reshape(w.shape)
        assert np.array(theirs).dtype == s.dtype and np.array_equal(np.array(theirs), ours), f"{name}: dequantize differs"
        # Our quantizer is MLX's: quantize the same float32 values with both.
        noisy = (w + np.random.default_rng(count).normal(size=w.shape).astype(np.float32) * np.abs(w).mean()).astype(np.float32)
        q, s, b = (np.array(x) for x in mx.quantize(mx.array(noisy), group_size=GROUP, bits=BITS))
        codes, scale, bias = quantize(noisy, rounded=False)
        assert np.array_equal(scale, s) and np.array_equal(bias, b), f"{name}: scales differ"
        assert np.array_equal(pack(codes), q), f"{name}: codes differ in {np.mean(pack(codes) != q):.2%} of the words"
        count += 1
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{count} matrices agree with mlx.core bit by bit; the folder has {size:,} bytes")
    if size > 8_000_000:
        sys.exit("the folder is larger than 8,000,000 bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--tokenizer", default="build/tokenizer")
    parser.add_argument("--out", default="../../models/pippin-nano-4bit")
    parser.add_argument("--verify", action="store_true", help="only check the folder --out")
    args = parser.parse_args()
    if args.checkpoint:
        export(args.checkpoint, args.tokenizer, args.out)
    if args.verify:
        verify(args.out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Make crates/pippin-models/tests/rope.json: what mlx-lm's rotary positions do, for rope fields as published models have them.

A unit vector in each rotated pair, put at position 1, comes out turned by the pair's frequency and stretched by the scale. That
measures what is applied rather than what is stored, alike for all kinds.
"""

import json
import pathlib

import mlx.core as mx
import numpy as np
from mlx_lm.models.rope_utils import initialize_rope

FILE = pathlib.Path(__file__).resolve().parents[2] / "crates" / "pippin-models" / "tests" / "rope.json"

LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
PHI_LONG = [1.0 + 0.04 * i * i for i in range(48)]

# name, head_dim, max_position_embeddings, rope_theta, rope_scaling, traditional
CASES = [
    ("Llama 2", 128, 4096, 10000.0, None, False),
    ("Llama 2, traditional", 128, 4096, 10000.0, None, True),
    ("CodeLlama", 128, 16384, 1000000, None, False),
    ("Qwen 3", 128, 40960, 1000000, {"rope_type": "default"}, False),
    ("DeepSeek Coder", 128, 16384, 100000, {"type": "linear", "factor": 4.0}, False),
    ("linear, odd factor", 80, 2048, 10000.0, {"rope_type": "linear", "factor": 2.7}, False),
    ("Llama 3.1", 128, 131072, 500000.0, LLAMA3 | {"factor": 8.0}, False),
    ("Llama 3.2 1B", 64, 131072, 500000.0, LLAMA3 | {"factor": 32.0}, False),
    ("llama3, its defaults", 64, 131072, 500000.0, {"rope_type": "llama3", "factor": 8.0}, False),
    ("Qwen 2.5 long", 128, 32768, 1000000.0, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, False),
    ("Qwen 3 long", 128, 40960, 1000000, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, False),
    ("yarn, its defaults", 128, 65536, 10000.0, {"type": "yarn", "factor": 16.0}, False),
    ("DeepSeek V2", 64, 163840, 10000, {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
        "mscale": 0.707, "mscale_all_dim": 0.707}, False),
    ("yarn, unequal mscale", 64, 163840, 10000, {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 0.5}, True),
    ("yarn, factor below 1", 64, 4096, 10000, {"type": "yarn", "factor": 0.5}, False),
    ("yarn, ramp of no width", 64, 4096, 10000, {"type": "yarn", "factor": 4, "beta_fast": 1e9, "beta_slow": 1e9}, False),
    ("Phi 3 128k", 96, 131072, 10000.0, {
        "type": "longrope", "original_max_position_embeddings": 4096, "short_factor": [1.0] * 48, "long_factor": PHI_LONG}, False),
    ("longrope within the original context", 96, 4096, 10000.0, {
        "type": "longrope", "original_max_position_embeddings": 4096, "short_factor": [1.0] * 48, "long_factor": PHI_LONG}, True),
    ("Gemma 4", 512, 131072, 1000000.0, {"rope_type": "proportional", "partial_rotary_factor": 0.25}, False),
    ("proportional, stretched", 64, 4096, 10000.0, {"type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0}, True),
]


def measure(dims, rope, traditional):
    """Frequency and scale of each pair."""
    half = dims // 2
    firsts = np.arange(half) * 2 if traditional else np.arange(half)
    seconds = firsts + 1 if traditional else firsts + half
    x = np.zeros((1, 1, 1, dims), np.float32)
    x[..., firsts] = 1
    turned = np.array(rope(mx.array(x), offset=1))[0, 0, 0].astype(np.float64)
    return np.arctan2(turned[seconds], turned[firsts]), np.hypot(turned[seconds], turned[firsts])


def main():
    mx.set_default_device(mx.cpu)
    cases = []
    for name, dims, context, theta, scaling, traditional in CASES:
        rope = initialize_rope(dims, theta, traditional, scaling, context)
        turns_pairs = traditional and (scaling or {}).get("type") != "longrope"
        frequencies, scales = measure(dims, rope, turns_pairs)
        assert np.ptp(scales) < 1e-6
        cases.append({
            "name": name,
            "config": {"head_dim": dims, "max_position_embeddings": context, "rope_theta": theta, "rope_scaling": scaling,
                       "rope_traditional": traditional},
            "scale": round(float(scales.mean()), 7),
            "frequencies": [float(f"{f:.9g}") for f in frequencies],
        })
    lines = ",\n".join(json.dumps(case) for case in cases)
    FILE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()

"""The products of a decoding step as one kernel that stays (step.cu), beside the same as a graph of pippin-cuda's kernels.

    python3 tools/cuda/persistent/run.py

A prototype: no attention, and not faster yet. bench/results/2026-11-27-cuda-tiles.md has its figures.
"""

import ctypes as C
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from kernels import Matrix, Module, RowNorm, TilePart, at, f32, i32, microseconds, place, splits_of, u32


class Part(C.Structure):
    _fields_ = [("tiles", at), ("bias", at), ("words", at), ("out", at), ("residual", at), ("plain_residual", at), ("outputs", u32), ("tiles_before", u32)]


class Stage(C.Structure):
    _fields_ = [("parts", Part * 3), ("words", at), ("plain", at), ("norm", RowNorm), ("back", u32), ("residual_back", u32)]
    _fields_ += [("columns", u32), ("quads", u32), ("splits", u32), ("tiles", u32), ("is_gated", i32), ("is_f16", i32), ("kind", i32)]
    _fields_ += [("activation_kind", i32), ("p", f32), ("q", f32)]


class Program(C.Structure):
    _fields_ = [("stages", at), ("count", u32), ("pad", u32), ("state", at)]


module = Module([f"{HERE}/step.cu"])
multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count


def stage_of(matrices, words=None, plain=None, norm=None, to_words=None, out=None, residual=None, plain_residual=None, residual_back=0, is_gated=False):
    stage, tiles, outputs = Stage(), 0, 0
    for index in range(3):
        part = stage.parts[index]
        if index >= len(matrices):
            part.tiles_before = 0xFFFFFFFF
            continue
        matrix = matrices[index]
        part.tiles, part.outputs, part.tiles_before = place(matrix.tiles), matrix.outputs, 0 if is_gated else tiles
        part.words = place(to_words) + 8 * outputs if to_words is not None else 0
        part.out = place(out) + 4 * outputs if out is not None else 0
        part.residual, part.plain_residual = place(residual), place(plain_residual)
        tiles += 0 if is_gated else matrix.lines
        outputs += 0 if is_gated else matrix.outputs
    first = matrices[0]
    stage.words, stage.plain, stage.back, stage.residual_back = place(words), place(plain), 1, residual_back
    if norm is not None:
        stage.norm = norm
    stage.columns, stage.quads, stage.splits, stage.tiles = first.columns, first.quads, splits_of(first.quads), first.lines if is_gated else tiles
    stage.is_gated = int(is_gated)
    return stage


def one(x, matrices, outs, norm=None, residual=None, is_gated=False):
    first, of_warp = matrices[0], 2 if is_gated else 1
    quads, splits = first.quads, splits_of(first.quads)
    parts = [TilePart(place(m.tiles), place(out), 0, place(residual), m.outputs) for m, out in zip(matrices, outs)]
    counts = [m.lines for m in matrices] + [0, 0]
    tail = [at(place(x)), u32(first.columns), u32(quads), u32(splits), norm or RowNorm(0, 0.0, 0), i32(0)]
    shared = 560 * quads + of_warp * splits * 64
    if is_gated:
        module.launch("tiles_gated_one_2", (counts[0],), 32 * splits, shared, [*parts, *tail, i32(0), i32(0), f32(0), f32(0)])
    else:
        parts += parts[:1] * (3 - len(parts))
        module.launch("tiles_one_1", (sum(counts),), 32 * splits, shared, [*parts, u32(counts[0]), u32(counts[1]), *tail])


def measure(name, hidden, inner, layers, heads, kv):
    torch.manual_seed(3)
    sizes = {"q": (heads, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, heads), "g": (inner, hidden), "u": (inner, hidden), "d": (hidden, inner)}
    model = [{key: Matrix(module, *size, seed=layer) for key, size in sizes.items()} for layer in range(layers)]
    weight = torch.rand(hidden, device="cuda") * 0.02
    norm, x = RowNorm(place(weight), 1e-6, 1), torch.randn(hidden, device="cuda")
    qkv, middle, gates, stream = (torch.zeros(size, dtype=torch.int64, device="cuda") for size in (heads + 2 * kv, hidden, inner, hidden))
    stages = []
    for index, layer in enumerate(model):
        before = {"plain": x} if index == 0 else {"words": stream}
        added = {"plain_residual": x} if index == 0 else {"residual": stream}
        stages.append(stage_of([layer["q"], layer["k"], layer["v"]], norm=norm, to_words=qkv, **before))
        stages.append(stage_of([layer["o"]], words=qkv, to_words=middle, residual_back=2, **added))
        stages.append(stage_of([layer["g"], layer["u"]], words=middle, norm=norm, to_words=gates, is_gated=True))
        stages.append(stage_of([layer["d"]], words=gates, to_words=stream, residual=middle, residual_back=2))
    program = torch.frombuffer(bytearray(bytes((Stage * len(stages))(*stages))), dtype=torch.uint8).cuda()
    state = torch.zeros(2, dtype=torch.int32, device="cuda")
    of_stage = lambda s: 560 * s.quads + 64 * s.splits * (1 + s.is_gated) * ((s.tiles + multiprocessors - 1) // multiprocessors + 1)
    shared = max(map(of_stage, stages)) + len(stages) * (C.sizeof(Stage) + 16) + 32

    def stay():
        module.launch("stay", (multiprocessors,), 512, shared, [Program(place(program), len(stages), 0, place(state))])

    now, then = x.clone(), torch.zeros(hidden, device="cuda")
    q, k, v, g = (torch.zeros(size, device="cuda") for size in (heads, kv, kv, inner))

    def graph():
        now.copy_(x)
        for layer in model:
            one(now, [layer["q"], layer["k"], layer["v"]], [q, k, v], norm)
            one(q, [layer["o"]], [then], residual=now)
            one(then, [layer["g"], layer["u"]], [g, g], norm, is_gated=True)
            one(g, [layer["d"]], [now], residual=then)

    graph()
    for _ in range(3):
        stay()
    torch.cuda.synchronize()
    found = (stream & 0xFFFFFFFF).to(torch.int32).view(torch.float32)
    if not torch.equal(found, now):
        sys.exit(f"{name}: other bits than the graph's")
    times = [microseconds(work) / layers for work in (stay, graph)]
    print(f"{name}: a layer's products {times[0]:.2f} us in one kernel, {times[1]:.2f} us in a graph", flush=True)


print(torch.cuda.get_device_name())
measure("0.6B", 1024, 3072, 28, 2048, 1024)
measure("4B", 2560, 9728, 36, 4096, 1024)
measure("8B", 4096, 12288, 36, 4096, 1024)

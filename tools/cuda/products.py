"""Products in tiles on this machine's GPU: that they are right, that a row has the same bits in every kernel, and how long they take.

    python3 tools/cuda/products.py

Shapes are those of Qwen3 of 0.6, 4 and 8 billion weights; every layer has weights of its own, so that none is in the cache. The tables of
bench/results/2026-11-27-cuda-tiles.md.
"""

import sys

import torch
from kernels import Matrix, Module, RowNorm, TilePart, at, f32, i32, microseconds, place, splits_of, u32

NONE = RowNorm(0, 0.0, 0)
module = Module()
multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count


def parts_of(matrices, outs, bias, residual, of_block):
    parts = [TilePart(place(m.tiles), place(out), place(bias), place(residual), m.outputs) for m, out in zip(matrices, outs)]
    counts = [(m.lines + of_block - 1) // of_block for m in matrices] + [0, 0]
    return parts + parts[:1] * (3 - len(parts)), counts


def one(x, matrices, outs, norm=NONE, bias=None, residual=None, of_warp=1, lines=1, is_gated=False, begins_early=True):
    first = matrices[0]
    splits, quads = splits_of(first.quads), first.quads
    shared, threads = 560 * quads + lines * of_warp * splits * 64, 32 * splits * lines
    tail = [at(place(x)), u32(first.columns), u32(quads), u32(splits), norm, i32(0)]
    if is_gated:
        parts, counts = parts_of(matrices[:1], outs, bias, residual, lines * of_warp // 2)
        up = TilePart(place(matrices[1].tiles), place(outs[0]), 0, 0, matrices[1].outputs)
        arguments = [parts[0], up, *tail, i32(0), i32(0), f32(0), f32(0)]
        module.launch(f"tiles_gated_one_{of_warp}", (counts[0],), threads, shared, arguments, begins_early)
    else:
        parts, counts = parts_of(matrices, outs, bias, residual, lines * of_warp)
        arguments = [*parts, u32(counts[0]), u32(counts[1]), *tail]
        module.launch(f"tiles_one_{of_warp}", (sum(counts),), threads, shared, arguments, begins_early)


def plan(quads, tiles, is_gated):
    """As `Plan::new` in crates/pippin-cuda/src/tiles.rs."""
    splits = splits_of(quads)
    lines = max(8 // splits, 2) if splits <= 8 else 1
    if is_gated:
        return {"of_warp": 4 if splits == 16 else 2, "lines": lines}
    many = 1 if splits < 10 else 4 if tiles >= 2 * multiprocessors else 2 if tiles >= multiprocessors else 1
    return {"of_warp": many, "lines": lines}


def places_for(columns, rows):
    quads, rows = (columns + 255) // 256, (rows + 63) // 64 * 64
    return torch.zeros(rows * 512 * quads, dtype=torch.uint8, device="cuda"), torch.zeros(rows * 8 * quads, device="cuda"), torch.zeros(rows, device="cuda")


def stage(x, columns, rows, staged, norm=NONE):
    quads = (columns + 255) // 256
    module.launch("stage_rows", (rows,), 256, 16 * quads, [*[at(place(part)) for part in staged], at(place(x)), u32(columns), u32(quads), norm])


def some(name, of_block, of_rows, threads, shared):
    def launch(staged, rows, matrices, outs, bias=None, residual=None):
        quads = matrices[0].quads
        splits = splits_of(quads)
        parts, counts = parts_of(matrices, outs, bias, residual, of_block)
        arguments = [*parts, u32(counts[0]), u32(counts[1]), *[at(place(part)) for part in staged], u32(rows), u32(quads), u32(splits), i32(0)]
        module.launch(name, (sum(counts), (rows + of_rows - 1) // of_rows), threads(splits), shared(splits), arguments)

    return launch


SEVERAL = {f"many_{n}": some(f"tiles_many_{n}", 1, 4 * n, lambda splits: 32 * splits, lambda splits, n=n: 256 * n * splits) for n in (2, 4, 8)}
for of_warp, halves in ((1, 1), (2, 2)):
    SEVERAL[f"wide_{of_warp}_{halves}"] = some(
        f"tiles_wide_{of_warp}_{halves}", 8 // halves * of_warp, 32 * halves, lambda _: 256, lambda _, halves=halves: 4 * 32 * halves * 136
    )


def check():
    torch.manual_seed(1)
    rows, wrong = 100, 0
    for outputs, columns in [(64, 256), (1024, 1024), (100, 448), (2560, 9728), (333, 2560), (1024, 12288)]:
        matrix = Matrix(module, outputs, columns, outputs, keeps=True)
        x = torch.randn(rows, columns, device="cuda") * torch.rand(rows, 1, device="cuda") * 3
        weight, bias, residual = torch.rand(columns, device="cuda") + 0.5, torch.randn(outputs, device="cuda"), torch.randn(rows, outputs, device="cuda")
        for norm in (NONE, RowNorm(place(weight), 1e-6, 1)):
            expected = x.double()
            if norm.is_there:
                expected = expected * torch.rsqrt((expected * expected).mean(1, keepdim=True) + 1e-6) * weight.double()
            expected = expected @ matrix.dense().T + bias.double() + residual.double()
            alone = torch.zeros(rows, outputs, device="cuda")
            for row in range(rows):
                shape = {"of_warp": [1, 2, 4][row % 3], "lines": 1 + row % 2 if splits_of(matrix.quads) <= 8 else 1}
                one(x[row], [matrix], [alone[row]], norm, bias, residual[row], **shape)
            staged = places_for(columns, rows)
            stage(x, columns, rows, staged, norm)
            differ = []
            for name, launch in SEVERAL.items():
                out = torch.zeros(rows, outputs, device="cuda")
                launch(staged, rows, [matrix], [out], bias, residual)
                torch.cuda.synchronize()
                if not torch.equal(alone, out):
                    differ.append(name)
            error = ((alone.double() - expected).norm() / expected.norm()).item()
            print(f"[{outputs}, {columns}], {'with' if norm.is_there else 'without'} a norm: error {error:.1e}, other bits: {differ or 'none'}")
            wrong += error > 1e-4 or bool(differ)
    return wrong


def times(name, hidden, inner, layers, heads, kv):
    shapes = {"qkv": [(heads, hidden), (kv, hidden), (kv, hidden)], "o": [(hidden, heads)], "gate, up": [(inner, hidden)] * 2, "down": [(hidden, inner)]}
    model = [{key: [Matrix(module, *shape) for shape in of_key] for key, of_key in shapes.items()} for _ in range(layers)]
    weight = torch.rand(16384, device="cuda")
    norm = RowNorm(place(weight), 1e-6, 1)
    x = torch.randn(2048, max(inner, heads), device="cuda")
    outs = [torch.zeros(2048 * max(inner, heads), device="cuda") for _ in range(3)]
    for begins_early in (False, True):

        def step(keys):
            for layer in model:
                for key in keys:
                    own, is_gated = layer[key], key == "gate, up"
                    tiles = sum(m.lines for m in own[:1] if is_gated) or sum(m.lines for m in own)
                    one(x, own, outs[: len(own)], norm, is_gated=is_gated, begins_early=begins_early, **plan(own[0].quads, tiles, is_gated))

        each = {key: microseconds(lambda: step([key])) / layers for key in shapes}
        whole = microseconds(lambda: step(list(shapes))) / layers
        print(f"{name}, 1 row, {'early' if begins_early else 'plain'}: " + ", ".join(f"{key} {time:.1f}" for key, time in each.items()) + f"; a layer {whole:.1f} us")
    for rows in (8, 32, 64, 512, 2048):
        best = []
        for key in shapes:
            columns = model[0][key][0].columns
            staged = places_for(columns, rows)
            own = {}
            for kernel, launch in SEVERAL.items():
                if (kernel.startswith("many") and rows > 64) or (kernel.startswith("wide") and rows < 32):
                    continue
                own[kernel] = microseconds(lambda: [launch(staged, rows, layer[key], outs[: len(layer[key])]) for layer in model], 5) / layers
            before = microseconds(lambda: [stage(x, columns, rows, staged, norm) for _ in model], 5) / layers
            kernel = min(own, key=own.get)
            best.append((key, kernel, own[kernel], before))
        whole = sum(time + before for _, _, time, before in best)
        print(f"{name}, {rows} rows: " + ", ".join(f"{key} {time:.1f} ({kernel}; staging {before:.1f})" for key, kernel, time, before in best) + f"; a layer {whole:.0f} us", flush=True)


print(torch.cuda.get_device_name())
if check():
    sys.exit("WRONG")
print("all right")
times("0.6B", 1024, 3072, 8, 2048, 1024)
times("4B", 2560, 9728, 6, 4096, 1024)
times("8B", 4096, 12288, 6, 4096, 1024)

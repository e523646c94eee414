// Products with 4-bit matrices in tiles, on tensor cores, with activations of 16 bits.
//
// A matrix is cut into tiles of 16 rows and 256 columns: 2048 bytes of weights, then the scales and biases of its four groups of 64, as
// `pack_tiles` writes them. A row of x becomes integers of 16 bits with one factor for each group of 64; two columns of bytes (x = 256 high
// + low) meet the weights in u8 x s8 products, whose sums are exact. So only the sums over groups are rounded, and they are added in one
// order whatever the number of rows: a warp of a block (one of `splits`) has every `splits`th tile of a row of tiles, adds its groups by
// their number modulo four, these four in their order, and then the warps' sums in theirs.

#define TILE_BYTES 2304
#define TILE_SCALES 2048
// Integers of the largest activation of a group.
#define LARGEST 32512.0f

struct TilePart {
    const u8* tiles;
    float* out;
    const float* bias;
    // What is added to the result.
    const float* residual;
    u32 outputs;
};

struct RowNorm {
    const float* weight;
    float eps;
    // Whether there is one.
    int is_there;
};

// The part that has a block. By its members: parameters have no addresses that registers could be chosen by.
__device__ __forceinline__ TilePart chosen(const TilePart& a, const TilePart& b, const TilePart& d, u32 block, u32 a_blocks, u32 b_blocks) {
    bool first = block < a_blocks, second = block < a_blocks + b_blocks;
    TilePart part;
    part.tiles = first ? a.tiles : second ? b.tiles : d.tiles;
    part.out = first ? a.out : second ? b.out : d.out;
    part.bias = first ? a.bias : second ? b.bias : d.bias;
    part.residual = first ? a.residual : second ? b.residual : d.residual;
    part.outputs = first ? a.outputs : second ? b.outputs : d.outputs;
    return part;
}

// Weights are read once.
__device__ __forceinline__ uint4 load_once(const uint4* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}

__device__ __forceinline__ uint2 load_once(const uint2* from) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
    return v;
}

__device__ __forceinline__ void mma_u8s8(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The first and the second of two numbers of 16 bits.
__device__ __forceinline__ float first_of(u32 pair, bool is_f16) { return is_f16 ? of_f16((u16)pair) : __uint_as_float(pair << 16); }
__device__ __forceinline__ float second_of(u32 pair, bool is_f16) { return is_f16 ? of_f16((u16)(pair >> 16)) : __uint_as_float(pair & 0xffff0000u); }

// Four activations of a group of 64, the others of which the 15 neighbouring lanes have: their bytes, and to the first lane's `group` what
// the integers are multiplied with (a sixteenth of it: half of the weights come sixteen times too large) and the group's sum.
__device__ __forceinline__ void to_integers(float4 x, u32& high, u32& low, float2& group) {
    float largest = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
    float sum = (x.x + x.y) + (x.z + x.w);
#pragma unroll
    for (int step = 1; step < 16; step <<= 1) {
        largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, step));
        sum += __shfl_xor_sync(FULL, sum, step);
    }
    float inverse = LARGEST / fmaxf(largest, 1e-30f);
    int a = __float2int_rn(x.x * inverse), b = __float2int_rn(x.y * inverse), c = __float2int_rn(x.z * inverse), d = __float2int_rn(x.w * inverse);
    low = __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
    high = __byte_perm(__byte_perm(a + 128, b + 128, 0x0051), __byte_perm(c + 128, d + 128, 0x0051), 0x5410);
    group = make_float2(largest * (1.0f / (LARGEST * 16.0f)), sum);
}

// The sum of the squares of a group's activations, of which a lane has four.
__device__ __forceinline__ float group_squares(float4 x) {
    float squares = fmaf(x.x, x.x, x.y * x.y) + fmaf(x.z, x.z, x.w * x.w);
#pragma unroll
    for (int step = 1; step < 16; step <<= 1) squares += __shfl_xor_sync(FULL, squares, step);
    return squares;
}

// What a row is multiplied with by its norm, from the squares of its groups; a warp works on it.
__device__ __forceinline__ float norm_factor(const float* squares, u32 groups, u32 columns, float eps) {
    float sum = 0.0f;
    for (u32 group = threadIdx.x % 32; group < groups; group += 32) sum += squares[group];
    return rsqrtf(warp_sum(sum) / columns + eps);
}

// Rounded each: products that are multiplied and added in one go here and not there would differ.
__device__ __forceinline__ float4 times(float4 x, float4 weight) {
    return make_float4(__fmul_rn(x.x, weight.x), __fmul_rn(x.y, weight.y), __fmul_rn(x.z, weight.z), __fmul_rn(x.w, weight.w));
}

// One row of x in shared memory: high bytes, low bytes, then the groups' factors and sums, then their squares.
struct Staged {
    u8* bytes;
    float2* groups;
    float* squares;
    u32 padded;
};

__device__ __forceinline__ Staged staged_in(u8* shared, u32 quads) {
    Staged staged;
    staged.padded = 256 * quads;
    staged.bytes = shared;
    staged.groups = (float2*)(shared + 2 * staged.padded);
    staged.squares = (float*)(staged.groups + 4 * quads);
    return staged;
}

__device__ __forceinline__ void stage(const Staged& to, const float* x, u32 columns, const RowNorm& norm) {
    for (u32 i = threadIdx.x; i < to.padded / 4; i += blockDim.x) {
        bool is_inside = 4 * i < columns;
        float4 own = is_inside ? ((const float4*)x)[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (norm.is_there) {
            float squares = group_squares(own);
            if (i % 16 == 0) to.squares[i / 16] = squares;
            if (norm.weight && is_inside) own = times(own, ((const float4*)norm.weight)[i]);
        }
        float2 group;
        u32 high, low;
        to_integers(own, high, low, group);
        ((u32*)to.bytes)[i] = high;
        ((u32*)(to.bytes + to.padded))[i] = low;
        if (i % 16 == 0) to.groups[i / 16] = group;
    }
}

// One row of x times rows of tiles. A block has `blockDim.x / 32 / splits * R` of these, of one part; if `is_gated`, half of a warp's are the
// first part's and half are the same ones of the second. The first output is row `skip` of the first tile.
template <int R>
__device__ __forceinline__ void tiles_one_of(
    const TilePart& part, const TilePart* up, u32 first_tile, u32 skip, const float* x, u32 columns, u32 quads, u32 splits, const RowNorm& norm, bool is_f16, int kind,
    int activation_kind, float p, float q) {
    extern __shared__ __align__(16) u8 shared_bytes[];
    Staged staged = staged_in(shared_bytes, quads);
    float* sums = staged.squares + 4 * quads;
    u32 warp = __shfl_sync(FULL, threadIdx.x / 32, 0), lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
    u32 split = warp % splits, line = warp / splits, lines = blockDim.x / 32 / splits;
    u32 all_tiles = (skip + part.outputs + 15) / 16;
    const u8* from[R];
#pragma unroll
    for (int r = 0; r < R; r++) {
        u32 tile = up ? first_tile + line * (R / 2) + r % (R / 2 ? R / 2 : 1) : first_tile + line * R + r;
        const u8* tiles = up && r >= R / 2 ? up->tiles : part.tiles;
        // What is beyond the last row of tiles is computed from it, and not written.
        from[r] = tiles + (u64)min(tile, all_tiles - 1) * quads * TILE_BYTES;
    }
    uint4 w[R][4];
    uint2 scales[R];
    auto load = [&](int r, u32 quad) {
        const u8* tile = from[r] + (u64)quad * TILE_BYTES;
#pragma unroll
        for (int t = 0; t < 4; t++) w[r][t] = load_once((const uint4*)(tile + 512 * t) + lane);
        scales[r] = load_once((const uint2*)(tile + TILE_SCALES + 64 * c) + g);
    };
    if (split < quads) {
#pragma unroll
        for (int r = 0; r < R; r++) load(r, split);
    }
    wait_for_inputs();
    stage(staged, x, columns, norm);
    __syncthreads();
    let_next_begin();
    float upper[R], lower[R];
#pragma unroll
    for (int r = 0; r < R; r++) upper[r] = lower[r] = 0.0f;
#pragma unroll 1
    for (u32 quad = split; quad < quads; quad += splits) {
        // Group t's bytes stand in columns 2 t and 2 t + 1, so four groups are summed beside each other.
        u32 b[4][4];
        const u8* bytes = staged.bytes + (g & 1) * staged.padded + 256 * quad + 16 * c;
#pragma unroll
        for (int t = 0; t < 4; t++) {
            uint4 own = make_uint4(0, 0, 0, 0);
            if (g / 2 == t) own = *(const uint4*)(bytes + 64 * t);
            b[t][0] = own.x; b[t][1] = own.y; b[t][2] = own.z; b[t][3] = own.w;
        }
        float2 group = staged.groups[4 * quad + c];
#pragma unroll
        for (int r = 0; r < R; r++) {
            int even[4] = {0, 0, 0, 0}, odd[4] = {0, 0, 0, 0};
#pragma unroll
            for (int t = 0; t < 4; t++) {
                const u32 LOW = 0x0f0f0f0fu, HIGH = 0xf0f0f0f0u;
                mma_u8s8(even, w[r][t].x & LOW, w[r][t].y & LOW, w[r][t].z & LOW, w[r][t].w & LOW, b[t][0], b[t][1]);
                mma_u8s8(odd, w[r][t].x & HIGH, w[r][t].y & HIGH, w[r][t].z & HIGH, w[r][t].w & HIGH, b[t][2], b[t][3]);
            }
            uint2 own = scales[r];
            if (quad + splits < quads) load(r, quad + splits);
            int above = even[0] * 4096 + (even[1] * 16 + (odd[0] * 256 + odd[1])), below = even[2] * 4096 + (even[3] * 16 + (odd[2] * 256 + odd[3]));
            upper[r] = fmaf(first_of(own.x, is_f16), (float)above * group.x, fmaf(first_of(own.y, is_f16), group.y, upper[r]));
            lower[r] = fmaf(second_of(own.x, is_f16), (float)below * group.x, fmaf(second_of(own.y, is_f16), group.y, lower[r]));
        }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        // The first lane's groups, then the second's, the third's and the fourth's.
#pragma unroll
        for (u32 step = 1; step < 4; step++) {
            float above = __shfl_up_sync(FULL, upper[r], 1), below = __shfl_up_sync(FULL, lower[r], 1);
            if (c == step) upper[r] += above, lower[r] += below;
        }
        if (c == 3) {
            float* to = sums + ((line * R + r) * splits + split) * 16 + g;
            to[0] = upper[r];
            to[8] = lower[r];
        }
    }
    float factor = norm.is_there ? norm_factor(staged.squares, 4 * quads, columns, norm.eps) : 1.0f;
    __syncthreads();
    u32 of_line = up ? R / 2 : R;
    for (u32 i = threadIdx.x; i < 16 * lines * of_line; i += blockDim.x) {
        u32 own_line = i / (16 * of_line), r = i / 16 % of_line, row = i % 16;
        u32 output = 16 * (first_tile + own_line * of_line + r) + row - skip;
        // Also what is before the first, which is a large number.
        if (output >= part.outputs) continue;
        const float* own = sums + (own_line * R + r) * splits * 16 + row;
        float value = 0.0f;
        for (u32 s = 0; s < splits; s++) value += own[16 * s];
        value = __fmul_rn(value, factor);
        if (part.bias) value += part.bias[output];
        if (up) {
            const float* other = sums + (own_line * R + r + R / 2) * splits * 16 + row;
            float second = 0.0f;
            for (u32 s = 0; s < splits; s++) second += other[16 * s];
            second = __fmul_rn(second, factor);
            if (up->bias) second += up->bias[output];
            value = gate_of(kind, activation_kind, p, q, value, second);
        }
        if (part.residual) value += part.residual[output];
        part.out[output] = value;
    }
}

#define TILES_ONE(R)                                                                                                                     \
    extern "C" __global__ void __launch_bounds__(512) tiles_one_##R(                                                                     \
        TilePart a, TilePart b, TilePart d, u32 a_blocks, u32 b_blocks, const float* x, u32 columns, u32 quads, u32 splits, RowNorm norm,  \
        int is_f16) {                                                                                                                    \
        u32 of_block = blockDim.x / 32 / splits * R, block = blockIdx.x;                                                                 \
        const TilePart part = chosen(a, b, d, block, a_blocks, b_blocks);                                               \
        block -= block < a_blocks ? 0 : block < a_blocks + b_blocks ? a_blocks : a_blocks + b_blocks;                                    \
        tiles_one_of<R>(part, 0, block * of_block, 0, x, columns, quads, splits, norm, is_f16, 0, 0, 0.0f, 0.0f);                           \
    }
TILES_ONE(1)
TILES_ONE(2)
TILES_ONE(4)

#define TILES_GATED_ONE(R)                                                                                                               \
    extern "C" __global__ void __launch_bounds__(512) tiles_gated_one_##R(                                                               \
        TilePart gate, TilePart up, const float* x, u32 columns, u32 quads, u32 splits, RowNorm norm, int is_f16, int kind,              \
        int activation_kind, float p, float q) {                                                                                         \
        u32 of_block = blockDim.x / 32 / splits * (R / 2);                                                                               \
        tiles_one_of<R>(gate, &up, blockIdx.x * of_block, 0, x, columns, quads, splits, norm, is_f16, kind, activation_kind, p, q);         \
    }
TILES_GATED_ONE(2)
TILES_GATED_ONE(4)

// Row i of the result is row i / each of x times the matrix of the expert routes[i].
#define TILES_GATHERED(R)                                                                                                                \
    extern "C" __global__ void __launch_bounds__(512) tiles_gathered_##R(                                                                \
        TilePart stack, const float* x, u32 columns, u32 quads, u32 splits, int is_f16, u32 each, const u32* routes, u32 experts) {      \
        u32 of_block = blockDim.x / 32 / splits * R;                                                                                     \
        u64 route = blockIdx.x;                                                                                                          \
        wait_for_inputs();                                                                                                               \
        u32 expert = routes[route];                                                                                                      \
        TilePart part = stack;                                                                                                           \
        part.out += route * part.outputs;                                                                                                \
        if (expert >= experts) {                                                                                                         \
            let_next_begin();                                                                                                            \
            u32 at = blockIdx.y * 16 * of_block + threadIdx.x;                                                                           \
            for (; at < min(part.outputs, (blockIdx.y + 1) * 16 * of_block); at += blockDim.x) part.out[at] = 0.0f;                      \
            return;                                                                                                                      \
        }                                                                                                                                \
        u64 first = (u64)expert * part.outputs;                                                                                          \
        part.tiles += first / 16 * quads * TILE_BYTES;                                                                                   \
        RowNorm none = {0, 0.0f, 0};                                                                                                     \
        tiles_one_of<R>(                                                                                                                 \
            part, 0, blockIdx.y * of_block, first % 16, x + route / each * columns, columns, quads, splits, none, is_f16, 0, 0, 0.0f, 0.0f); \
    }
TILES_GATHERED(1)
TILES_GATHERED(2)

// Rows that lie together when they are staged.
#define STAGED_ROWS 32

// Where a row's part of a group is among staged rows, in rows: those of 32 rows are together, group by group.
__device__ __forceinline__ u64 staged_at(u32 row, u32 group, u32 groups) { return ((u64)(row / STAGED_ROWS) * groups + group) * STAGED_ROWS + row % STAGED_ROWS; }

// Rows of x as the products with many rows take them: of each group of a row 64 high bytes and 64 low bytes, and its factor and sum; what the
// norm multiplies the row's results with. A block has a row.
extern "C" __global__ void __launch_bounds__(256) stage_rows(u8* bytes, float2* groups, float* factors, const float* x, u32 columns, u32 quads, RowNorm norm) {
    extern __shared__ float squares[];
    u32 row = blockIdx.x, padded = 256 * quads;
    begin();
    x += (u64)row * columns;
    for (u32 i = threadIdx.x; i < padded / 4; i += blockDim.x) {
        bool is_inside = 4 * i < columns;
        float4 own = is_inside ? ((const float4*)x)[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (norm.is_there) {
            float own_squares = group_squares(own);
            if (i % 16 == 0) squares[i / 16] = own_squares;
            if (norm.weight && is_inside) own = times(own, ((const float4*)norm.weight)[i]);
        }
        float2 group;
        u32 high, low;
        to_integers(own, high, low, group);
        u64 at = staged_at(row, i / 16, 4 * quads);
        ((u32*)bytes)[32 * at + i % 16] = high;
        ((u32*)bytes)[32 * at + 16 + i % 16] = low;
        // No weights come sixteen times too large there.
        if (i % 16 == 0) groups[at] = make_float2(16.0f * group.x, group.y);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        float factor = norm.is_there ? norm_factor(squares, 4 * quads, columns, norm.eps) : 1.0f;
        if (threadIdx.x == 0) factors[row] = factor;
    }
}

#define AHEAD 4

// 4 N rows of x, staged, times rows of tiles: a block has `blockDim.x / 32 / splits` of these, of one part.
template <int N>
__device__ __forceinline__ void tiles_many_of(
    const TilePart& part, u32 first_tile, const u8* bytes, const float2* groups, const float* factors, u32 rows, u32 quads, u32 splits, bool is_f16) {
    extern __shared__ __align__(16) u8 shared_bytes[];
    float* sums = (float*)shared_bytes;
    u32 warp = __shfl_sync(FULL, threadIdx.x / 32, 0), lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
    u32 split = warp % splits, line = warp / splits, lines = blockDim.x / 32 / splits;
    u32 all_tiles = (part.outputs + 15) / 16;
    u32 first_row = blockIdx.y * 4 * N;
    const u8* from = part.tiles + (u64)min(first_tile + line, all_tiles - 1) * quads * TILE_BYTES;
    // Of the rows whose bytes this lane brings, and of those whose sums it gets, the first: the others are every fourth after these. Rows
    // that are not there have places all the same.
    const u8* own_bytes = bytes + staged_at(first_row + g / 2, 0, 4 * quads) * 128 + (g & 1) * 64 + 16 * c;
    const float2* own_groups = groups + staged_at(first_row + c, 0, 4 * quads);
    float upper[N], lower[N], all_upper[N], all_lower[N];
#pragma unroll
    for (int n = 0; n < N; n++) upper[n] = lower[n] = all_upper[n] = all_lower[n] = 0.0f;
    // Items: the first groups of all tiles, then the second groups, and so on. Weights are asked for AHEAD items before they are used.
    u32 own_quads = split < quads ? (quads - split + splits - 1) / splits : 0, items = 4 * own_quads;
    uint4 w[AHEAD];
    uint2 scales[AHEAD];
    auto load = [&](int slot, u32 item) {
        u32 t = item / own_quads, quad = split + item % own_quads * splits;
        const u8* tile = from + (u64)quad * TILE_BYTES;
        w[slot] = __ldg((const uint4*)(tile + 512 * t) + lane);
        scales[slot] = __ldg((const uint2*)(tile + TILE_SCALES + 64 * t) + g);
    };
#pragma unroll
    for (int slot = 0; slot < AHEAD; slot++) {
        if (slot < items) load(slot, slot);
    }
    wait_for_inputs();
    let_next_begin();
    u32 t = 0, quad = split;
#pragma unroll 1
    for (u32 first = 0; first < items; first += AHEAD) {
#pragma unroll
        for (int slot = 0; slot < AHEAD; slot++) {
            if (first + slot >= items) break;
            const u32 LOW = 0x0f0f0f0fu;
            u32 even[4] = {w[slot].x & LOW, w[slot].y & LOW, w[slot].z & LOW, w[slot].w & LOW};
            u32 odd[4] = {w[slot].x >> 4 & LOW, w[slot].y >> 4 & LOW, w[slot].z >> 4 & LOW, w[slot].w >> 4 & LOW};
            float upper_scale = first_of(scales[slot].x, is_f16), lower_scale = second_of(scales[slot].x, is_f16);
            float upper_bias = first_of(scales[slot].y, is_f16), lower_bias = second_of(scales[slot].y, is_f16);
            if (first + slot + AHEAD < items) load(slot, first + slot + AHEAD);
            const u32 at = (4 * quad + t) * STAGED_ROWS;
#pragma unroll
            for (int n = 0; n < N; n++) {
                uint4 b = *(const uint4*)(own_bytes + 128 * (at + 4 * n));
                float2 group = own_groups[at + 4 * n];
                int all[4] = {0, 0, 0, 0};
                mma_u8s8(all, even[0], even[1], even[2], even[3], b.x, b.y);
                mma_u8s8(all, odd[0], odd[1], odd[2], odd[3], b.z, b.w);
                float above = (float)(all[0] * 256 + all[1]), below = (float)(all[2] * 256 + all[3]);
                upper[n] = fmaf(upper_scale, above * group.x, fmaf(upper_bias, group.y, upper[n]));
                lower[n] = fmaf(lower_scale, below * group.x, fmaf(lower_bias, group.y, lower[n]));
            }
            quad += splits;
            if (quad >= quads) {
                quad = split;
                t++;
#pragma unroll
                for (int n = 0; n < N; n++) {
                    // The first sum is no sum of two: it may be a negative zero.
                    all_upper[n] = t == 1 ? upper[n] : all_upper[n] + upper[n];
                    all_lower[n] = t == 1 ? lower[n] : all_lower[n] + lower[n];
                    upper[n] = lower[n] = 0.0f;
                }
            }
        }
    }
    // Sums of a line, split and row of x: 16 outputs.
#pragma unroll
    for (int n = 0; n < N; n++) {
        float* to = sums + ((line * splits + split) * 4 * N + 4 * n + c) * 16;
        to[g] = all_upper[n];
        to[g + 8] = all_lower[n];
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < lines * 4 * N * 16; i += blockDim.x) {
        u32 own_line = i / (4 * N * 16), own_row = i / 16 % (4 * N), place = i % 16;
        u32 output = 16 * (first_tile + own_line) + place;
        u64 row = first_row + own_row;
        if (output >= part.outputs || row >= rows) continue;
        const float* own = sums + (own_line * splits * 4 * N + own_row) * 16 + place;
        float value = 0.0f;
        for (u32 s = 0; s < splits; s++) value += own[s * 4 * N * 16];
        value = __fmul_rn(value, factors[row]);
        if (part.bias) value += part.bias[output];
        u64 at = row * part.outputs + output;
        if (part.residual) value += part.residual[at];
        part.out[at] = value;
    }
}

#define TILES_MANY(N)                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(512) tiles_many_##N(                                                                    \
        TilePart a, TilePart b, TilePart d, u32 a_blocks, u32 b_blocks, const u8* bytes, const float2* groups, const float* factors,       \
        u32 rows, u32 quads, u32 splits, int is_f16) {                                                                                   \
        u32 of_block = blockDim.x / 32 / splits, block = blockIdx.x;                                                                     \
        const TilePart part = chosen(a, b, d, block, a_blocks, b_blocks);                                               \
        block -= block < a_blocks ? 0 : block < a_blocks + b_blocks ? a_blocks : a_blocks + b_blocks;                                    \
        tiles_many_of<N>(part, block * of_block, bytes, groups, factors, rows, quads, splits, is_f16);                                   \
    }
TILES_MANY(2)
TILES_MANY(4)
TILES_MANY(8)

// The same for many rows: a block has 32 HALVES of them, and of its eight warps each has 32 and R rows of tiles; x comes
// through shared memory, a group at a time, some groups ahead. ONE_TURN: a split has one tile. Groups are taken in the order in which their products are added.
#define WIDE_STAGES 4
#define WIDE_BYTES(HALVES) (32 * HALVES * (128 + 8))

struct Order {
    u32 split, t, quad;
};

// The next group, in the order of the splits, of the groups of a tile, of the tiles of a split.
__device__ __forceinline__ void advance(Order& at, u32 quads, u32 splits) {
    at.quad += splits;
    if (at.quad < quads) return;
    if (++at.t == 4) at.t = 0, at.split++;
    at.quad = at.split;
}

__device__ __forceinline__ void copy_16(u32 to, const void* from) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory"); }

template <int R, int HALVES, bool ONE_TURN>
__device__ __forceinline__ void tiles_wide_of(
    const TilePart& part, u32 first_tile, const u8* bytes, const float2* groups, const float* factors, u32 rows, u32 quads, u32 splits, bool is_f16) {
    extern __shared__ __align__(16) u8 shared_bytes[];
    u32 warp = __shfl_sync(FULL, threadIdx.x / 32, 0), lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
    u32 line = warp / HALVES, half = warp % HALVES, first_row = blockIdx.y * 32 * HALVES, all_tiles = (part.outputs + 15) / 16;
    u32 shared_at = (u32)__cvta_generic_to_shared(shared_bytes);
    const u8* from[R];
#pragma unroll
    for (int r = 0; r < R; r++) from[r] = part.tiles + (u64)min(first_tile + line * R + r, all_tiles - 1) * quads * TILE_BYTES;
    uint4 w[R];
    uint2 scales[R];
    auto load = [&](const Order& at) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            const u8* tile = from[r] + (u64)at.quad * TILE_BYTES;
            w[r] = __ldg((const uint4*)(tile + 512 * at.t) + lane);
            scales[r] = __ldg((const uint2*)(tile + TILE_SCALES + 64 * at.t) + g);
        }
    };
    const u32 items = 4 * quads;
    const u8* copied = bytes + 128 * staged_at(first_row, 0, items) + 16 * threadIdx.x;
    const float2* copied_groups = groups + staged_at(first_row, 0, items) + 2 * (threadIdx.x % 16);
    // From rows to the 32 rows after them.
    const u64 rows_on = (u64)items * STAGED_ROWS;
    auto fetch = [&](u32 stage, const Order& at) {
        u32 to = shared_at + stage * WIDE_BYTES(HALVES), group = (4 * at.quad + at.t) * STAGED_ROWS;
        copy_16(to + 16 * threadIdx.x, copied + 128 * group);
        if (HALVES == 2) copy_16(to + 4096 + 16 * threadIdx.x, copied + 128 * (rows_on + group));
        if (threadIdx.x < 16 * HALVES) copy_16(to + 4096 * HALVES + 16 * threadIdx.x, copied_groups + (threadIdx.x < 16 ? 0 : rows_on) + group);
    };
    Order ahead = {0, 0, 0}, next = {0, 0, 0};
    load(next);
    wait_for_inputs();
    let_next_begin();
#pragma unroll
    for (u32 stage = 0; stage < WIDE_STAGES - 1; stage++) {
        if (stage < items) {
            fetch(stage, ahead);
            advance(ahead, quads, splits);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    float all_upper[R][8], all_lower[R][8], total_upper[R][8], total_lower[R][8];
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
        for (int n = 0; n < 8; n++) total_upper[r][n] = total_lower[r][n] = 0.0f;
    }
    u32 item = 0;
#pragma unroll 1
    for (u32 split = 0; split < splits; split++) {
#pragma unroll
        for (u32 t = 0; t < 4; t++) {
            // The first group's sums are what the others' are added to.
            float upper_sums[R][8], lower_sums[R][8];
            float(&upper)[R][8] = t == 0 ? all_upper : upper_sums;
            float(&lower)[R][8] = t == 0 ? all_lower : lower_sums;
#pragma unroll
            for (int r = 0; r < R; r++) {
#pragma unroll
                for (int n = 0; n < 8; n++) upper[r][n] = lower[r][n] = 0.0f;
            }
            auto turn = [&]() {
                asm volatile("cp.async.wait_group %0;" ::"n"(WIDE_STAGES - 2) : "memory");
                __syncthreads();
                if (item + WIDE_STAGES - 1 < items) {
                    fetch((item + WIDE_STAGES - 1) % WIDE_STAGES, ahead);
                    advance(ahead, quads, splits);
                }
                asm volatile("cp.async.commit_group;" ::: "memory");
                const u32 LOW = 0x0f0f0f0fu;
                u32 even[R][4], odd[R][4];
                float upper_scale[R], lower_scale[R], upper_bias[R], lower_bias[R];
#pragma unroll
                for (int r = 0; r < R; r++) {
                    even[r][0] = w[r].x & LOW, even[r][1] = w[r].y & LOW, even[r][2] = w[r].z & LOW, even[r][3] = w[r].w & LOW;
                    odd[r][0] = w[r].x >> 4 & LOW, odd[r][1] = w[r].y >> 4 & LOW, odd[r][2] = w[r].z >> 4 & LOW, odd[r][3] = w[r].w >> 4 & LOW;
                    upper_scale[r] = first_of(scales[r].x, is_f16), lower_scale[r] = second_of(scales[r].x, is_f16);
                    upper_bias[r] = first_of(scales[r].y, is_f16), lower_bias[r] = second_of(scales[r].y, is_f16);
                }
                if (item + 1 < items) {
                    advance(next, quads, splits);
                    load(next);
                }
                const u8* stage = shared_bytes + item % WIDE_STAGES * WIDE_BYTES(HALVES);
                const u8* own_bytes = stage + half * 4096 + 128 * (g / 2) + 64 * (g & 1) + 16 * c;
                const float2* own_groups = (const float2*)(stage + 4096 * HALVES) + half * 32 + c;
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    uint4 b = *(const uint4*)(own_bytes + 512 * n);
                    float2 group = own_groups[4 * n];
#pragma unroll
                    for (int r = 0; r < R; r++) {
                        int all[4] = {0, 0, 0, 0};
                        mma_u8s8(all, even[r][0], even[r][1], even[r][2], even[r][3], b.x, b.y);
                        mma_u8s8(all, odd[r][0], odd[r][1], odd[r][2], odd[r][3], b.z, b.w);
                        float above = (float)(all[0] * 256 + all[1]), below = (float)(all[2] * 256 + all[3]);
                        upper[r][n] = fmaf(upper_scale[r], above * group.x, fmaf(upper_bias[r], group.y, upper[r][n]));
                        lower[r][n] = fmaf(lower_scale[r], below * group.x, fmaf(lower_bias[r], group.y, lower[r][n]));
                    }
                }
                item++;
            };
            if (ONE_TURN) {
                turn();
            } else {
#pragma unroll 1
                for (u32 quad = split; quad < quads; quad += splits) turn();
            }
#pragma unroll
            for (int r = 0; r < R; r++) {
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    if (t > 0) all_upper[r][n] += upper[r][n], all_lower[r][n] += lower[r][n];
                    if (t == 3) total_upper[r][n] += all_upper[r][n], total_lower[r][n] += all_lower[r][n];
                }
            }
        }
    }
#pragma unroll
    for (int n = 0; n < 8; n++) {
        u64 row = first_row + 32 * half + 4 * n + c;
        if (row >= rows) continue;
        float factor = factors[row];
#pragma unroll
        for (int r = 0; r < R; r++) {
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                u32 output = 16 * (first_tile + line * R + r) + g + 8 * i;
                if (output >= part.outputs) continue;
                float value = __fmul_rn(i ? total_lower[r][n] : total_upper[r][n], factor);
                if (part.bias) value += part.bias[output];
                u64 at = row * part.outputs + output;
                if (part.residual) value += part.residual[at];
                part.out[at] = value;
            }
        }
    }
}

#define TILES_WIDE(R, HALVES)                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) tiles_wide_##R##_##HALVES(                                                         \
        TilePart a, TilePart b, TilePart d, u32 a_blocks, u32 b_blocks, const u8* bytes, const float2* groups, const float* factors,       \
        u32 rows, u32 quads, u32 splits, int is_f16) {                                                                                   \
        u32 block = blockIdx.x;                                                                                                          \
        const TilePart part = chosen(a, b, d, block, a_blocks, b_blocks);                                                                \
        block -= block < a_blocks ? 0 : block < a_blocks + b_blocks ? a_blocks : a_blocks + b_blocks;                                    \
        u32 first = block * 8 / HALVES * R;                                                                                              \
        if (splits == quads) tiles_wide_of<R, HALVES, true>(part, first, bytes, groups, factors, rows, quads, splits, is_f16);           \
        else tiles_wide_of<R, HALVES, false>(part, first, bytes, groups, factors, rows, quads, splits, is_f16);                          \
    }
TILES_WIDE(1, 1)
TILES_WIDE(2, 2)

// Packs a matrix: a block has a tile, each of its four warps a group.
extern "C" __global__ void __launch_bounds__(128) pack_tiles(u8* tiles, const u32* weights, const u16* scales, const u16* biases, u32 outputs, u32 columns, u32 group, u32 quads) {
    begin();
    u64 block = blockIdx.x;
    u32 line = block / quads, quad = block % quads, t = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
    u32 upper = 16 * line + g, lower = upper + 8, column = 256 * quad + 64 * t + 16 * c;
    u8* tile = tiles + block * TILE_BYTES;
    u32 above[2] = {0, 0}, below[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        if (column >= columns) break;
        if (upper < outputs) above[i] = weights[((u64)upper * columns + column) / 8 + i];
        if (lower < outputs) below[i] = weights[((u64)lower * columns + column) / 8 + i];
    }
    // Bytes with four weights from `shift` on in their lower halves, and in the upper ones those eight columns on.
    auto bytes = [](const u32* words, int shift) {
        u32 all = 0;
        for (int i = 0; i < 4; i++) all |= ((words[0] >> (shift + 4 * i) & 15) | (words[1] >> (shift + 4 * i) & 15) << 4) << 8 * i;
        return all;
    };
    ((uint4*)(tile + 512 * t))[lane] = make_uint4(bytes(above, 0), bytes(below, 0), bytes(above, 16), bytes(below, 16));
    if (c == 0) {
        u32 groups = columns / group, own = (256 * quad + 64 * t) / group;
        u32 factors = 0, offsets = 0;
        if (256 * quad + 64 * t < columns) {
            if (upper < outputs) factors = scales[(u64)upper * groups + own], offsets = biases[(u64)upper * groups + own];
            if (lower < outputs) factors |= (u32)scales[(u64)lower * groups + own] << 16, offsets |= (u32)biases[(u64)lower * groups + own] << 16;
        }
        ((uint2*)(tile + TILE_SCALES + 64 * t))[g] = make_uint2(factors, offsets);
    }
}

// Eight columns of a row for each thread.
extern "C" __global__ void embedding_tiles(float* out, const u8* tiles, const u32* rows, u64 count, u32 limit, u32 columns, u32 quads, int is_f16) {
    begin();
    u64 at = place();
    u32 runs = columns / 8;
    if (at >= count * runs) return;
    u32 row = rows[at / runs], run = at % runs;
    float* to = out + at / runs * columns + 8 * run;
    if (row >= limit) {
        for (int i = 0; i < 8; i++) to[i] = 0.0f;
        return;
    }
    u32 t = run / 8 % 4, c = run / 2 % 4, half = run % 2, g = row % 8, is_lower = row / 8 % 2;
    const u8* tile = tiles + ((u64)(row / 16) * quads + run / 32) * TILE_BYTES;
    uint4 words = ((const uint4*)(tile + 512 * t))[4 * g + c];
    uint2 own = ((const uint2*)(tile + TILE_SCALES + 64 * t))[g];
    u32 first = is_lower ? words.y : words.x, second = is_lower ? words.w : words.z;
    float scale = is_lower ? second_of(own.x, is_f16) : first_of(own.x, is_f16), bias = is_lower ? second_of(own.y, is_f16) : first_of(own.y, is_f16);
    for (int i = 0; i < 4; i++) {
        to[i] = fmaf((float)(first >> (8 * i + 4 * half) & 15), scale, bias);
        to[4 + i] = fmaf((float)(second >> (8 * i + 4 * half) & 15), scale, bias);
    }
}

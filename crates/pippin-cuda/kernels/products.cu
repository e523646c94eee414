// Products with weight matrices, dequantized as they are read.
//
// A warp computes one output for a few rows. Whatever the number of rows, the terms of one are added in the same order: a lane has
// every 32nd run of eight columns, and the lanes' sums are added crosswise. So a row's bits do not depend on its neighbours.

struct Weights {
    const u8* data;
    const u8* scales;
    const u8* biases;
    u32 outputs;
    u32 columns;
    // Bits of an element, elements that share a scale.
    u32 bits;
    u32 group;
    // What scales are: 0 f32, 1 f16, 2 bf16, 3 E8M0, 4 E4M3.
    u32 scale_kind;
};

enum { DENSE_F32, DENSE_F16, DENSE_BF16, AFFINE, AFFINE_4, E2M1, E4M3 };

__device__ __forceinline__ float of_e4m3(u8 bits) {
    u32 exponent = bits >> 3 & 15, fraction = bits & 7;
    float value;
    if (exponent == 15 && fraction == 7) value = __uint_as_float(0x7fc00000u);
    else if (exponent == 0) value = fraction * 0.001953125f;
    else value = __uint_as_float((exponent + 120) << 23 | fraction << 20);
    return bits & 0x80 ? -value : value;
}

__device__ __forceinline__ float of_e2m1(u32 bits) {
    u32 exponent = bits >> 1 & 3, fraction = bits & 1;
    float value = exponent == 0 ? 0.5f * fraction : __uint_as_float((exponent + 126) << 23 | fraction << 22);
    return bits & 8 ? -value : value;
}

__device__ __forceinline__ float scale_at(const u8* scales, u64 at, u32 kind) {
    switch (kind) {
        case 0: return ((const float*)scales)[at];
        case 1: return of_f16(((const u16*)scales)[at]);
        case 2: return of_bf16(((const u16*)scales)[at]);
        case 3: {
            u32 exponent = scales[at];
            if (exponent == 255) return __uint_as_float(0x7fc00000u);
            return exponent == 0 ? __uint_as_float(0x00400000u) : __uint_as_float(exponent << 23);
        }
        default: return of_e4m3(scales[at]);
    }
}

// Eight weights of a row from column `8 chunk` on; zeros beyond the row, which only dense ones can reach.
template <int KIND> __device__ __forceinline__ void weights_at(const Weights& w, u64 row, u32 chunk, float* to) {
    u32 first = 8 * chunk;
    if (KIND == DENSE_F32 || KIND == DENSE_F16 || KIND == DENSE_BF16) {
        u64 at = row * w.columns + first;
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            if (first + i >= w.columns) to[i] = 0.0f;
            else if (KIND == DENSE_F32) to[i] = ((const float*)w.data)[at + i];
            else if (KIND == DENSE_F16) to[i] = of_f16(((const u16*)w.data)[at + i]);
            else to[i] = of_bf16(((const u16*)w.data)[at + i]);
        }
        return;
    }
    u64 group = row * (w.columns / w.group) + first / w.group;
    float scale = scale_at(w.scales, group, w.scale_kind);
    if (KIND == AFFINE_4) {
        u32 word = ((const u32*)w.data)[row * (w.columns / 8) + chunk];
        float bias = scale_at(w.biases, group, w.scale_kind);
#pragma unroll
        for (u32 i = 0; i < 8; i++) to[i] = fmaf((float)(word >> 4 * i & 15), scale, bias);
    } else if (KIND == AFFINE) {
        const u8* bytes = w.data + (row * (w.columns / 8) + chunk) * w.bits;
        u64 word = 0;
        for (u32 i = 0; i < w.bits; i++) word |= (u64)bytes[i] << 8 * i;
        float bias = scale_at(w.biases, group, w.scale_kind);
        u32 mask = (1u << w.bits) - 1;
#pragma unroll
        for (u32 i = 0; i < 8; i++) to[i] = fmaf((float)((u32)(word >> w.bits * i) & mask), scale, bias);
    } else if (KIND == E2M1) {
        u32 word = ((const u32*)w.data)[row * (w.columns / 8) + chunk];
#pragma unroll
        for (u32 i = 0; i < 8; i++) to[i] = of_e2m1(word >> 4 * i & 15) * scale;
    } else {
        const u8* bytes = w.data + row * w.columns + first;
#pragma unroll
        for (u32 i = 0; i < 8; i++) to[i] = of_e4m3(bytes[i]) * scale;
    }
}

// ROWS rows of x from `first` on times the weight row `row`; results are complete in every lane.
template <int KIND, int ROWS> __device__ __forceinline__ void products(const Weights& w, u64 row, const float* x, u32 rows, float* sums) {
    u32 lane = threadIdx.x % 32, chunks = (w.columns + 7) / 8;
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) sums[r] = 0.0f;
    // Several runs are under way at a time: a lane has few, and each waits for memory.
#pragma unroll 4
    for (u32 chunk = lane; chunk < chunks; chunk += 32) {
        float weights[8];
        weights_at<KIND>(w, row, chunk, weights);
        u32 first = 8 * chunk;
#pragma unroll
        for (u32 r = 0; r < ROWS; r++) {
            if (r >= rows) break;
            const float* own = x + (u64)r * w.columns + first;
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                if (KIND > DENSE_BF16 || first + i < w.columns) sums[r] = fmaf(weights[i], own[i], sums[r]);
            }
        }
    }
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) sums[r] = warp_sum(sums[r]);
}

// One matrix of several that multiply the same rows, one's blocks after the other's.
struct Part {
    Weights weights;
    float* out;
    const float* bias;
    // What is added to the result.
    const float* residual;
};

template <int KIND, int ROWS> __device__ void linear_of(const Part& part, u32 block, const float* x, u32 rows) {
    const Weights& w = part.weights;
    u64 output = (u64)block * (blockDim.x / 32) + threadIdx.x / 32;
    u64 first = (u64)blockIdx.y * ROWS;
    if (output >= w.outputs) return;
    u32 own = min((u64)ROWS, rows - first);
    float sums[ROWS];
    products<KIND, ROWS>(w, output, x + first * w.columns, own, sums);
    if (threadIdx.x % 32 != 0) return;
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
        if (r >= own) break;
        float value = part.bias ? sums[r] + part.bias[output] : sums[r];
        u64 at = (first + r) * w.outputs + output;
        part.out[at] = part.residual ? part.residual[at] + value : value;
    }
}

template <int KIND, int ROWS> __device__ void linears_of(const Part& a, const Part& b, const Part& c, u32 a_blocks, u32 b_blocks, const float* x, u32 rows) {
    u32 block = blockIdx.x;
    if (block < a_blocks) linear_of<KIND, ROWS>(a, block, x, rows);
    else if (block < a_blocks + b_blocks) linear_of<KIND, ROWS>(b, block - a_blocks, x, rows);
    else linear_of<KIND, ROWS>(c, block - a_blocks - b_blocks, x, rows);
}

// The gate of two matrices.
template <int KIND, int ROWS>
__device__ void gated_of(const Part& gate, const Part& up, const float* x, u32 rows, int kind, int activation_kind, float p, float q) {
    u64 output = (u64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    u64 first = (u64)blockIdx.y * ROWS;
    if (output >= gate.weights.outputs) return;
    u32 own = min((u64)ROWS, rows - first);
    x += first * gate.weights.columns;
    float gates[ROWS], ups[ROWS];
    products<KIND, ROWS>(gate.weights, output, x, own, gates);
    products<KIND, ROWS>(up.weights, output, x, own, ups);
    if (threadIdx.x % 32 != 0) return;
#pragma unroll
    for (u32 r = 0; r < ROWS; r++) {
        if (r >= own) break;
        float g = gate.bias ? gates[r] + gate.bias[output] : gates[r];
        float u = up.bias ? ups[r] + up.bias[output] : ups[r];
        gate.out[(first + r) * gate.weights.outputs + output] = gate_of(kind, activation_kind, p, q, g, u);
    }
}

#define LINEARS(NAME, KIND, ROWS)                                                                                                       \
    extern "C" __global__ void linears_##NAME##_##ROWS(Part a, Part b, Part c, u32 a_blocks, u32 b_blocks, const float* x, u32 rows) {  \
        begin();                                                                                                                        \
        linears_of<KIND, ROWS>(a, b, c, a_blocks, b_blocks, x, rows);                                                                   \
    }                                                                                                                                   \
    extern "C" __global__ void gated_##NAME##_##ROWS(                                                                                   \
        Part gate, Part up, const float* x, u32 rows, int kind, int activation_kind, float p, float q) {                                \
        begin();                                                                                                                        \
        gated_of<KIND, ROWS>(gate, up, x, rows, kind, activation_kind, p, q);                                                           \
    }

#define MATMUL(NAME, KIND)                                                                                                              \
    LINEARS(NAME, KIND, 1)                                                                                                              \
    LINEARS(NAME, KIND, 8)                                                                                                              \
    /* Row i of the result is row i / (routes / rows) of x times the matrix of the expert routes[i]. */                                 \
    extern "C" __global__ void gathered_##NAME(Weights w, float* out, const float* x, u32 each, const u32* routes, u32 experts) {       \
        begin();                                                                                                                        \
        u64 output = (u64)blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;                                                            \
        if (output >= w.outputs) return;                                                                                                \
        u64 route = blockIdx.x;                                                                                                         \
        u32 expert = routes[route];                                                                                                     \
        float sum = 0.0f;                                                                                                               \
        if (expert < experts) products<KIND, 1>(w, (u64)expert * w.outputs + output, x + route / each * w.columns, 1, &sum);            \
        if (threadIdx.x % 32 == 0) out[route * w.outputs + output] = sum;                                                               \
    }                                                                                                                                   \
    extern "C" __global__ void embedding_##NAME(Weights w, float* out, const u32* rows, u64 count, u32 limit) {                         \
        begin();                                                                                                                        \
        u64 at = place();                                                                                                               \
        u32 chunks = (w.columns + 7) / 8;                                                                                               \
        if (at >= count * chunks) return;                                                                                               \
        u32 row = rows[at / chunks], chunk = at % chunks;                                                                               \
        float weights[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};                                                            \
        if (row < limit) weights_at<KIND>(w, row, chunk, weights);                                                                      \
        for (u32 i = 0; i < 8 && 8 * chunk + i < w.columns; i++) out[at / chunks * w.columns + 8 * chunk + i] = weights[i];             \
    }

MATMUL(f32, DENSE_F32)
MATMUL(f16, DENSE_F16)
MATMUL(bf16, DENSE_BF16)
MATMUL(affine, AFFINE)
MATMUL(affine4, AFFINE_4)
MATMUL(e2m1, E2M1)
MATMUL(e4m3, E4M3)

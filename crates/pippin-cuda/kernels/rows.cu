// Elements and rows: sums, products, activations, gates, norms, gathers.

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

// The numbers are those of `Activation` in src/rows.rs.
__device__ float activation(int kind, float x, float p) {
    switch (kind) {
        case 0: return silu(x);
        case 1: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
        case 2: return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
        case 3: return x * sigmoid(1.702f * x);
        case 4: return larger(x, 0.0f);
        case 5: { float y = larger(x, 0.0f); return y * y; }
        case 6: return sigmoid(x);
        case 7: return tanhf(x);
        case 8: return x != x ? x : fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
        case 9: return expf(x);
        case 10: return x < 0.0f ? expm1f(x) - x : x != x ? x : 0.0f;
        case 11: return sqrtf(larger(x, 0.0f));
        case 12: return 1.0f / x;
        case 13: return p * tanhf(x / p);
        default: return within(p, x);
    }
}

// The numbers are those of `Gate` in src/rows.rs; `activation_kind` and its parameter are of the first.
__device__ float gate_of(int kind, int activation_kind, float p, float q, float gate, float up) {
    switch (kind) {
        case 0: return activation(activation_kind, gate, p) * up;
        case 1: {
            float g = at_most(q, gate), u = within(q, up);
            return g * sigmoid(p * g) * (u + 1.0f);
        }
        case 2: return silu(at_most(q, gate)) * within(q, up);
        case 3: return p * tanhf(gate / p) * sigmoid(gate) * (q > 0.0f ? q * tanhf(up / q) : up);
        default: return at_most(q, silu(gate)) * within(q, up);
    }
}

// `b` is as large as `a`, or one row, or one column, or one number.
extern "C" __global__ void broadcast(float* out, const float* a, const float* b, u64 count, u32 columns, int one_row, int one_column, int adds) {
    begin();
    u64 at = place();
    if (at >= count) return;
    u64 row = one_row ? 0 : at / columns;
    u64 column = one_column ? 0 : at % columns;
    float other = b[row * (one_column ? 1 : columns) + column];
    out[at] = adds ? a[at] + other : a[at] * other;
}

extern "C" __global__ void scale(float* out, const float* x, u64 count, float factor, float offset) {
    begin();
    u64 at = place();
    if (at < count) out[at] = fmaf(x[at], factor, offset);
}

extern "C" __global__ void activate(float* out, const float* x, u64 count, int kind, float p) {
    begin();
    u64 at = place();
    if (at < count) out[at] = activation(kind, x[at], p);
}

extern "C" __global__ void gated(float* out, const float* gate, const float* up, u64 count, int kind, int activation_kind, float p, float q) {
    begin();
    u64 at = place();
    if (at < count) out[at] = gate_of(kind, activation_kind, p, q, gate[at], up[at]);
}

// One block normalises one run of `width` columns. `weight_runs` says that the weight has a part for each run of a row; so for the bias.
extern "C" __global__ void normalise(float* out, const float* x, const float* weight, const float* bias, u32 width, u32 runs, float eps, int is_layer, int weight_runs, int bias_runs) {
    begin();
    u64 block = blockIdx.x;
    u32 run = block % runs;
    x += block * width;
    out += block * width;
    float shift = 0.0f;
    if (is_layer) {
        float sum = 0.0f;
        for (u32 i = threadIdx.x; i < width; i += ROW_THREADS) sum += x[i];
        shift = block_sum(sum) / width;
    }
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += ROW_THREADS) {
        float value = x[i] - shift;
        squares = fmaf(value, value, squares);
    }
    float factor = 1.0f / sqrtf(block_sum(squares) / width + eps);
    for (u32 i = threadIdx.x; i < width; i += ROW_THREADS) {
        float value = (x[i] - shift) * factor;
        if (weight) value *= weight[(weight_runs ? run * width : 0) + i];
        if (bias) value += bias[(bias_runs ? run * width : 0) + i];
        out[i] = value;
    }
}

// Sum, mean, root of the mean square, deviation.
extern "C" __global__ void reduce(float* out, const float* x, u32 columns, int kind) {
    begin();
    x += (u64)blockIdx.x * columns;
    float shift = 0.0f, total = 0.0f;
    if (kind != 2) {
        for (u32 i = threadIdx.x; i < columns; i += ROW_THREADS) total += x[i];
        total = block_sum(total);
    }
    if (kind >= 2) {
        if (kind == 3) shift = total / columns;
        float squares = 0.0f;
        for (u32 i = threadIdx.x; i < columns; i += ROW_THREADS) {
            float value = x[i] - shift;
            squares = fmaf(value, value, squares);
        }
        total = sqrtf(block_sum(squares) / columns);
    } else if (kind == 1) {
        total /= columns;
    }
    if (threadIdx.x == 0) out[blockIdx.x] = total;
}

extern "C" __global__ void softmax(float* out, const float* x, u32 columns) {
    begin();
    x += (u64)blockIdx.x * columns;
    out += (u64)blockIdx.x * columns;
    float top = -INFINITE;
    for (u32 i = threadIdx.x; i < columns; i += ROW_THREADS) top = highest(top, x[i]);
    top = block_highest(top);
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < columns; i += ROW_THREADS) {
        float value = expf(x[i] - top);
        out[i] = value;
        sum += value;
    }
    sum = block_sum(sum);
    for (u32 i = threadIdx.x; i < columns; i += ROW_THREADS) out[i] /= sum;
}

// A thread for each matrix: they have a few numbers.
extern "C" __global__ void sinkhorn(float* out, const float* x, u32 rows, u32 side, u32 iterations, float eps) {
    begin();
    u64 row = place();
    if (row >= rows) return;
    x += row * side * side;
    out += row * side * side;
    for (u32 column = 0; column < side; column++) {
        float top = -INFINITE, sum = 0.0f;
        for (u32 i = 0; i < side; i++) top = highest(top, x[i * side + column]);
        for (u32 i = 0; i < side; i++) {
            float value = expf(x[i * side + column] - top);
            out[i * side + column] = value;
            sum += value;
        }
        for (u32 i = 0; i < side; i++) out[i * side + column] = out[i * side + column] / sum + eps;
    }
    for (u32 iteration = 0; iteration < iterations; iteration++) {
        if (iteration > 0) {
            for (u32 column = 0; column < side; column++) {
                float sum = 0.0f;
                for (u32 i = 0; i < side; i++) sum += out[i * side + column];
                sum += eps;
                for (u32 i = 0; i < side; i++) out[i * side + column] /= sum;
            }
        }
        for (u32 i = 0; i < side; i++) {
            float sum = 0.0f;
            for (u32 column = 0; column < side; column++) sum += out[i * side + column];
            sum += eps;
            for (u32 column = 0; column < side; column++) out[i * side + column] /= sum;
        }
    }
}

// A number rounded to so many bits after its first one, but to no less than those of 2^least; of two nearest to the even one.
__device__ float round_to_multiple(float x, int bits, int least) {
    int exponent = (int)((__float_as_uint(x) >> 23) & 0xff) - 127;
    exponent = min(max(exponent, least), 120);
    float spacing = __uint_as_float((u32)(exponent - bits + 127) << 23);
    return rintf(x / spacing) * spacing;
}

__device__ float power_above(float x) {
    float below = __uint_as_float(__float_as_uint(x) & 0x7f800000u);
    return below == x ? x : below * 2.0f;
}

// E4M3 with a power of two, E2M1 with a power of two, E2M1 with an E4M3.
extern "C" __global__ void round_blocks(float* out, const float* x, u64 blocks, u32 block, int kind) {
    begin();
    u64 at = place();
    if (at >= blocks) return;
    x += at * block;
    out += at * block;
    float largest = 0.0f;
    for (u32 i = 0; i < block; i++) largest = highest(largest, fabsf(x[i]));
    float scale;
    if (kind == 0) scale = power_above(fmaxf(largest, 1e-4f) / 448.0f);
    else if (kind == 1) scale = power_above(fmaxf(largest / 6.0f, 1.17549435e-38f));
    else scale = within(448.0f, round_to_multiple(fmaxf(largest / 6.0f, 0.001953125f), 3, -6));
    for (u32 i = 0; i < block; i++) {
        float value = x[i] / scale;
        out[i] = scale * (kind == 0 ? within(448.0f, round_to_multiple(value, 3, -6)) : within(6.0f, round_to_multiple(value, 1, 0)));
    }
}

extern "C" __global__ void weighted_sum(float* out, const float* x, const float* weights, u64 count, u32 columns, u32 terms) {
    begin();
    u64 at = place();
    if (at >= count) return;
    u64 row = at / columns, column = at % columns;
    float sum = 0.0f;
    for (u32 term = 0; term < terms; term++) sum = fmaf(x[(row * terms + term) * columns + column], weights[row * terms + term], sum);
    out[at] = sum;
}

// Columns of one tensor to columns of another.
extern "C" __global__ void copy_columns(float* to, const float* from, u64 count, u32 columns, u32 to_stride, u32 to_first, u32 from_stride, u32 from_first) {
    begin();
    u64 at = place();
    if (at >= count) return;
    u64 row = at / columns, column = at % columns;
    to[row * to_stride + to_first + column] = from[row * from_stride + from_first + column];
}

extern "C" __global__ void select_rows(float* out, const float* x, const u32* rows, u64 count, u32 columns, u32 limit) {
    begin();
    u64 at = place();
    if (at >= count) return;
    u32 row = rows[at / columns];
    out[at] = row < limit ? x[(u64)row * columns + at % columns] : 0.0f;
}

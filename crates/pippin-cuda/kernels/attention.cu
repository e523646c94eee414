// Positions, the KV cache, and attention.

__device__ __forceinline__ void store_row(const Cache& cache, u8* base, u32 dim, u32 page, u32 offset, u32 head, const float* from, u32 lane) {
    u8* block = base + ((u64)page * cache.kv_heads + head) * block_bytes(cache, dim);
    u64 at = (u64)offset * dim;
    if (cache.format != 3) {
        for (u32 i = lane; i < dim; i += 32) {
            if (cache.format == 0) ((float*)block)[at + i] = from[i];
            else if (cache.format == 1) ((u16*)block)[at + i] = to_f16(from[i]);
            else ((u16*)block)[at + i] = to_bf16(from[i]);
        }
        return;
    }
    // Bits of numbers without sign are ordered as the numbers are, and NaN comes last.
    u32 largest = 0;
    for (u32 i = lane; i < dim; i += 32) largest = max(largest, __float_as_uint(from[i]) & 0x7fffffffu);
    for (int step = 16; step > 0; step >>= 1) largest = max(largest, __shfl_xor_sync(FULL, largest, step));
    float scale = __uint_as_float(largest) / 127.0f;
    float inverse = scale >= 1.17549435e-38f && scale < INFINITE ? 1.0f / scale : 0.0f;
    for (u32 i = lane; i < dim; i += 32) block[at + i] = (u8)(__float_as_uint(from[i] * inverse + 12582912.0f) & 0xff);
    if (lane < 4) block[(u64)cache.page_size * dim + 4 * offset + lane] = (u8)(__float_as_uint(scale) >> 8 * lane);
}

// A warp writes one head of one row; head numbers beyond the keys' are those of values.
extern "C" __global__ void kv_write(Cache cache, const float* keys, const float* values, const u32* rows, u32 count) {
    begin();
    u32 warp = place() / 32, lane = threadIdx.x % 32;
    u32 parts = values ? 2 * cache.kv_heads : cache.kv_heads;
    if (warp >= count * parts) return;
    u32 row = warp / parts, part = warp % parts;
    u32 page = rows[row] / cache.page_size, offset = rows[row] % cache.page_size;
    if (page >= cache.pages) return;
    bool is_value = part >= cache.kv_heads;
    u32 head = is_value ? part - cache.kv_heads : part;
    u32 dim = is_value ? cache.value_dim : cache.key_dim;
    const float* from = (is_value ? values : keys) + ((u64)row * cache.kv_heads + head) * dim;
    store_row(cache, is_value ? cache.values : cache.keys, dim, page, offset, head, from, lane);
}

// Attention of one head of one row. A warp takes runs of four keys, every eighth run; what the warps have found is put together in their
// order. Which keys there are is all that the bits depend on.
#define WARPS 8
#define RUN 4
#define MOST_VALUES 32

extern "C" __global__ void __launch_bounds__(32 * WARPS) attention(
    float* out, const float* queries, Cache cache, Step step, Cache other, Step other_step, u32 other_kind, u32 other_limit, const u32* chosen, u32 chosen_width,
    const u32* spans, u32 heads, float scale, float softcap, const float* sinks, u32 reach_kind, u32 reach_limit) {
    begin();
    extern __shared__ float shared[];
    u32 row = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 key_dim = cache.key_dim, value_dim = cache.value_dim;
    u32 kv_head = head / (heads / cache.kv_heads);
    float* query = shared;
    float* states = shared + key_dim;
    const float* from = queries + ((u64)row * heads + head) * key_dim;
    for (u32 i = threadIdx.x; i < key_dim; i += blockDim.x) query[i] = from[i];
    __syncthreads();

    u32 first, end, beside = 0, beside_first = 0, count;
    if (spans) {
        first = spans[2 * row];
        end = spans[2 * row + 1];
        count = end > first ? end - first : 0;
    } else {
        end = step.ends[row];
        first = first_seen(step.indices[row], reach_kind, reach_limit);
        count = end > first ? end - first : 0;
        if (chosen) {
            count = seen_among(chosen + (u64)row * chosen_width, chosen_width, end);
        }
        if (other_step.table) {
            beside_first = first_seen(step.indices[row], other_kind, other_limit);
            beside = end > beside_first ? end - beside_first : 0;
        }
    }
    const u32* table = step.table ? step.table + (u64)(step.row_sequences ? step.row_sequences[row] : 0) * step.table_width : 0;
    const u32* other_table = other_step.table ? other_step.table + (u64)step.row_sequences[row] * other_step.table_width : 0;

    float top = -INFINITE, sum = 0.0f, mixed[MOST_VALUES];
#pragma unroll
    for (u32 i = 0; i < MOST_VALUES; i++) mixed[i] = 0.0f;
    for (u32 run = RUN * warp; run < beside + count; run += RUN * WARPS) {
        float scores[RUN];
        Row value_rows[RUN];
        // The keys of a run wait for memory together.
#pragma unroll
        for (u32 i = 0; i < RUN; i++) {
            u32 key = run + i;
            scores[i] = -INFINITE;
            value_rows[i].numbers = 0;
            if (key >= beside + count) continue;
            bool is_other = key < beside;
            u32 token = is_other ? beside_first + key : chosen ? chosen[(u64)row * chosen_width + key - beside] : first + key - beside;
            const Cache& own = is_other ? other : cache;
            const u32* pages = is_other ? other_table : table;
            u32 width = is_other ? other_step.table_width : step.table_width;
            u32 number = token / own.page_size;
            u32 page = pages ? (number < width ? pages[number] : 0) : number;
            if (page >= own.pages) page = own.pages - 1;
            u32 offset = token % own.page_size;
            Row key_row = cache_row(own, own.keys, key_dim, page, offset, kv_head);
            float score = 0.0f;
            for (u32 k = lane; k < key_dim; k += 32) score = fmaf(query[k], number_at(key_row, k, own.format), score);
            scores[i] = score;
            value_rows[i] = cache_row(own, own.values, own.value_stride, page, offset, kv_head);
        }
#pragma unroll
        for (u32 i = 0; i < RUN; i++) {
            if (run + i >= beside + count) continue;
            float score = warp_sum(scores[i]) * scale;
            if (softcap > 0.0f) score = softcap * tanhf(score / softcap);
            scores[i] = score;
        }
        float higher = top;
#pragma unroll
        for (u32 i = 0; i < RUN; i++) {
            if (run + i < beside + count) higher = larger(scores[i], higher);
        }
        // Nothing counts as much as it did when something higher comes; what is minus infinity counts for nothing.
        float before = higher == top ? 1.0f : top == -INFINITE && higher == higher ? 0.0f : expf(top - higher);
        top = higher;
        sum *= before;
#pragma unroll
        for (u32 i = 0; i < MOST_VALUES; i++) mixed[i] *= before;
#pragma unroll
        for (u32 i = 0; i < RUN; i++) {
            if (run + i >= beside + count) continue;
            float share = scores[i] == -INFINITE ? 0.0f : scores[i] == higher ? 1.0f : expf(scores[i] - higher);
            sum = scores[i] != scores[i] ? scores[i] : sum + share;
            if (share == 0.0f) continue;
#pragma unroll
            for (u32 k = 0; k < MOST_VALUES; k++) {
                u32 at = lane + 32 * k;
                if (at < value_dim) mixed[k] = fmaf(share, number_at(value_rows[i], at, cache.format), mixed[k]);
            }
        }
    }
    float* own_state = states + warp * (value_dim + 2);
    if (lane == 0) {
        own_state[value_dim] = top;
        own_state[value_dim + 1] = sum;
    }
#pragma unroll
    for (u32 i = 0; i < MOST_VALUES; i++) {
        u32 at = lane + 32 * i;
        if (at < value_dim) own_state[at] = mixed[i];
    }
    __syncthreads();
    float all = -INFINITE, total = 0.0f, factors[WARPS];
    if (sinks) all = larger(sinks[head], all);
    for (u32 w = 0; w < WARPS; w++) all = larger(states[w * (value_dim + 2) + value_dim], all);
    for (u32 w = 0; w < WARPS; w++) {
        float own = states[w * (value_dim + 2) + value_dim];
        factors[w] = own == -INFINITE ? 0.0f : own == all ? 1.0f : expf(own - all);
        total += states[w * (value_dim + 2) + value_dim + 1] * factors[w];
    }
    if (sinks) total += sinks[head] == -INFINITE ? 0.0f : expf(sinks[head] - all);
    if (all != all) total = all;
    float* to = out + ((u64)row * heads + head) * value_dim;
    for (u32 i = threadIdx.x; i < value_dim; i += blockDim.x) {
        float value = 0.0f;
        for (u32 w = 0; w < WARPS; w++) value += states[w * (value_dim + 2) + i] * factors[w];
        // Who sees nothing has nothing.
        to[i] = beside + count == 0 ? 0.0f : value / total;
    }
}

// How high each key ranks: a warp for a key of a row.
extern "C" __global__ void key_ranks(float* ranks, const float* queries, const float* weights, Cache cache, Step step, u32 heads, u32 stride, u32 longest) {
    begin();
    u32 row = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 key_dim = cache.key_dim;
    const u32* table = step.table + (u64)step.row_sequences[row] * step.table_width;
    u32 keys = step.ends[row] / stride;
    for (u32 key = blockIdx.x * (blockDim.x / 32) + warp; key < keys && key < longest; key += gridDim.x * (blockDim.x / 32)) {
        u32 token = (key + 1) * stride - 1;
        u32 number = token / cache.page_size;
        u32 page = number < step.table_width ? table[number] : 0;
        if (page >= cache.pages) page = cache.pages - 1;
        Row own = cache_row(cache, cache.keys, key_dim, page, token % cache.page_size, 0);
        float rank = 0.0f;
        for (u32 head = 0; head < heads; head++) {
            const float* query = queries + ((u64)row * heads + head) * key_dim;
            float score = 0.0f;
            for (u32 i = lane; i < key_dim; i += 32) score = fmaf(query[i], number_at(own, i, cache.format), score);
            rank = fmaf(weights[(u64)row * heads + head], larger(warp_sum(score), 0.0f), rank);
        }
        if (lane == 0) ranks[(u64)row * longest + key] = rank;
    }
}

// Cosines and sines of a row's rotations. The product of position and frequency is rounded to f32, as mlx does.
extern "C" __global__ void rope_angles(float* out, const u32* positions, const float* frequencies, const u8* axes, u32 rows, u32 pairs, float scale, int is_dynamic, double base, double factor, double original) {
    begin();
    u64 at = place();
    if (at >= (u64)rows * pairs) return;
    u32 row = at / pairs, pair = at % pairs;
    u32 position = positions[(u64)(axes ? axes[pair] : 0) * rows + row];
    float frequency;
    if (is_dynamic) {
        double dims = 2.0 * pairs;
        double context = fmax((double)positions[row] + 1.0, original) / original;
        double own = base * pow(factor * context - (factor - 1.0), dims / (dims - 2.0));
        frequency = (float)pow(own, -2.0 * pair / dims);
    } else {
        frequency = frequencies[pair];
    }
    double sine, cosine;
    sincos((double)((float)position * frequency), &sine, &cosine);
    out[(u64)row * 2 * pairs + pair] = (float)cosine * scale;
    out[(u64)row * 2 * pairs + pairs + pair] = (float)sine * scale;
}

extern "C" __global__ void position_scale(float* out, const u32* positions, u32 rows, float floor_of, float scale, float first) {
    begin();
    u64 row = place();
    if (row < rows) out[row] = fmaf(log1pf(floorf(((float)positions[row] + first) / floor_of)), scale, 1.0f);
}

extern "C" __global__ void rope(float* out, const float* x, const float* angles, u64 count, u32 columns, u32 head_dim, u32 dims, int is_traditional) {
    begin();
    u64 at = place();
    if (at >= count) return;
    u64 row = at / columns;
    u32 column = at % columns, i = column % head_dim, pairs = dims / 2;
    if (i >= dims) {
        out[at] = x[at];
        return;
    }
    u32 pair = is_traditional ? i / 2 : i % pairs;
    bool is_second = is_traditional ? i % 2 : i >= pairs;
    u64 partner = is_traditional ? (is_second ? at - 1 : at + 1) : (is_second ? at - pairs : at + pairs);
    float cosine = angles[row * dims + pair], sine = angles[row * dims + pairs + pair];
    out[at] = is_second ? fmaf(x[partner], sine, x[at] * cosine) : fmaf(x[at], cosine, -(x[partner] * sine));
}

// What stands before the attention: a warp has one head of one row. Queries and keys are normalised if there is a weight or `has_norm`, and
// rotated if there are angles; keys and values go to the cache.
#define HEAD_WARPS 4
#define MOST_DIM 512

struct HeadNorm {
    const float* weight;
    const float* bias;
    float eps;
    // 0 none, 1 by the root mean square, 2 by mean and deviation.
    int kind;
};

extern "C" __global__ void write_heads(
    float* out, const float* queries, const float* keys, const float* values, Cache cache, const u32* rows, u32 count, u32 heads, HeadNorm query_norm, HeadNorm key_norm,
    const float* angles, u32 dims, int is_traditional) {
    begin();
    __shared__ float buffers[HEAD_WARPS][2][MOST_DIM];
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 parts = heads + cache.kv_heads * (values ? 2 : 1);
    u64 number = (u64)blockIdx.x * HEAD_WARPS + warp;
    if (number >= (u64)count * parts) return;
    u32 row = number / parts, part = number % parts;
    bool is_query = part < heads, is_value = part >= heads + cache.kv_heads;
    u32 head = is_query ? part : is_value ? part - heads - cache.kv_heads : part - heads;
    u32 dim = is_value ? cache.value_dim : cache.key_dim;
    const float* from = is_query ? queries + ((u64)row * heads + head) * dim : (is_value ? values : keys) + ((u64)row * cache.kv_heads + head) * dim;
    float* own = buffers[warp][0];
    float* rotated = buffers[warp][1];
    if (is_value) {
        for (u32 i = lane; i < dim; i += 32) rotated[i] = from[i];
    } else {
        const HeadNorm& norm = is_query ? query_norm : key_norm;
        float shift = 0.0f, factor = 1.0f;
        if (norm.kind) {
            if (norm.kind == 2) {
                float sum = 0.0f;
                for (u32 i = lane; i < dim; i += 32) sum += from[i];
                shift = warp_sum(sum) / dim;
            }
            float squares = 0.0f;
            for (u32 i = lane; i < dim; i += 32) squares = fmaf(from[i] - shift, from[i] - shift, squares);
            factor = 1.0f / sqrtf(warp_sum(squares) / dim + norm.eps);
        }
        for (u32 i = lane; i < dim; i += 32) {
            float value = from[i];
            if (norm.kind) {
                value = (value - shift) * factor;
                if (norm.weight) value *= norm.weight[i];
                if (norm.bias) value += norm.bias[i];
            }
            own[i] = value;
        }
        __syncwarp();
        u32 pairs = dims / 2;
        for (u32 i = lane; i < dim; i += 32) {
            float value = own[i];
            if (angles && i < dims) {
                u32 pair = is_traditional ? i / 2 : i % pairs;
                bool is_second = is_traditional ? i % 2 : i >= pairs;
                u32 partner = is_traditional ? (is_second ? i - 1 : i + 1) : (is_second ? i - pairs : i + pairs);
                float cosine = angles[(u64)row * dims + pair], sine = angles[(u64)row * dims + pairs + pair];
                value = is_second ? fmaf(own[partner], sine, value * cosine) : fmaf(value, cosine, -(own[partner] * sine));
            }
            rotated[i] = value;
            if (is_query) out[((u64)row * heads + head) * dim + i] = value;
        }
    }
    __syncwarp();
    if (is_query) return;
    u32 place_of_row = rows[row];
    u32 page = place_of_row / cache.page_size, offset = place_of_row % cache.page_size;
    if (page >= cache.pages) return;
    store_row(cache, is_value ? cache.values : cache.keys, dim, page, offset, head, rotated, lane);
}

// Experts and recurrences.

__device__ __forceinline__ float rank_of(float value) { return value != value ? -INFINITE : value; }

// The place of the largest of `size` values but for the first `so_far` places of `chosen`: the lower one of equals. NaN counts as the
// smallest.
__device__ u32 next_best(const float* values, u32 size, const u32* chosen, u32 so_far) {
    u32 best = 0xffffffffu;
    for (u32 i = 0; i < size; i++) {
        bool is_taken = false;
        for (u32 k = 0; k < so_far; k++) is_taken |= chosen[k] == i;
        if (is_taken) continue;
        if (best == 0xffffffffu || rank_of(values[i]) > rank_of(values[best])) best = i;
    }
    return best;
}

// A thread for each row. `scratch` has room for two numbers of each expert and each row, `group_scratch` for two of each group.
extern "C" __global__ void route(
    u32* routes, float* weights, const float* logits, const float* bias, float* scratch, float* group_ranks, u32* kept, u32 rows, u32 experts, u32 top_k, int function,
    float jitter, u32 groups, u32 top_groups, u32 best_of_group, int normalize, float scale) {
    begin();
    u64 row = place();
    if (row >= rows) return;
    logits += row * experts;
    float* scores = scratch + 2 * row * experts;
    float* ranks = scores + experts;
    routes += row * top_k;
    weights += row * top_k;
    if (function == 0) {
        float top = -INFINITE, sum = 0.0f;
        for (u32 i = 0; i < experts; i++) top = highest(top, logits[i]);
        for (u32 i = 0; i < experts; i++) sum += scores[i] = expf(logits[i] - top);
        for (u32 i = 0; i < experts; i++) scores[i] /= sum;
    } else {
        for (u32 i = 0; i < experts; i++) {
            float x = logits[i];
            if (function == 1) scores[i] = 1.0f / (1.0f + expf(-x));
            else if (function == 2) scores[i] = x != x ? x : sqrtf(fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))));
            else scores[i] = x;
        }
    }
    for (u32 i = 0; i < experts; i++) ranks[i] = bias ? scores[i] + bias[i] : scores[i];
    if (top_groups < groups) {
        u32 size = experts / groups;
        float* own = group_ranks + row * groups;
        u32* own_kept = kept + row * (groups + experts);
        u32* taken = own_kept + groups;
        for (u32 g = 0; g < groups; g++) {
            float sum = 0.0f;
            for (u32 k = 0; k < best_of_group; k++) {
                taken[k] = next_best(ranks + g * size, size, taken, k);
                sum += ranks[g * size + taken[k]];
            }
            own[g] = sum;
        }
        for (u32 k = 0; k < top_groups; k++) own_kept[k] = next_best(own, groups, own_kept, k);
        for (u32 g = 0; g < groups; g++) {
            bool is_kept = false;
            for (u32 k = 0; k < top_groups; k++) is_kept |= own_kept[k] == g;
            if (!is_kept) for (u32 i = 0; i < size; i++) ranks[g * size + i] = -INFINITE;
        }
    }
    float sum = 0.0f;
    for (u32 k = 0; k < top_k; k++) routes[k] = next_best(ranks, experts, routes, k);
    for (u32 k = 0; k < top_k; k++) {
        u32 expert = routes[k];
        float weight;
        if (function == 3) {
            float top = scores[expert], shares = 0.0f;
            for (u32 i = 0; i < experts; i++) {
                float logit = scores[i];
                bool is_far = (top - logit) / fmaxf(fabsf(logit), top) > 2.0f * jitter;
                shares += is_far ? 0.0f : expf(logit - top);
            }
            weight = 1.0f / shares;
            scores[expert] = -INFINITE;
        } else {
            weight = scores[expert];
        }
        weights[k] = weight;
        sum += weight;
    }
    float factor = normalize ? scale / sum : scale;
    for (u32 k = 0; k < top_k; k++) weights[k] *= factor;
}

// A thread for a column of a sequence. The state keeps the last rows, oldest first.
extern "C" __global__ void causal_convolution(float* out, const float* x, const float* weight, const float* bias, float* state, const u32* starts, const u32* slots, u32 sequences, u32 columns, u32 taps, u32 state_columns) {
    begin();
    u64 at = place();
    if (at >= (u64)sequences * columns) return;
    u32 sequence = at / columns, column = at % columns;
    u32 first = starts[sequence], rows = starts[sequence + 1] - first;
    float* past = state + (u64)slots[sequence] * state_columns + column;
    weight += (u64)column * taps;
    int kept = (int)taps - 1;
    for (u32 row = 0; row < rows; row++) {
        float sum = bias ? bias[column] : 0.0f;
        for (int tap = 0; tap < (int)taps; tap++) {
            int source = (int)row - kept + tap;
            float value = source < 0 ? past[(u64)(kept + source) * columns] : x[(u64)(first + source) * columns + column];
            sum = fmaf(weight[tap], value, sum);
        }
        out[(u64)(first + row) * columns + column] = sum;
    }
    // Oldest first: a row moves to an earlier place that has been read already.
    for (int i = 0; i < kept; i++) {
        int source = (int)rows - kept + i;
        past[(u64)i * columns] = source < 0 ? past[(u64)(kept + source) * columns] : x[(u64)(first + source) * columns + column];
    }
}

// A warp has one row of one head's state, of which each lane has every 32nd number.
extern "C" __global__ void scan(
    float* out, const float* queries, const float* keys, const float* values, const float* decay, const float* first, const float* second, float* state, const u32* starts,
    const u32* slots, u32 sequences, u32 heads, u32 key_heads, u32 key_dim, u32 value_dim, int decay_columns, int update) {
    begin();
    u64 warp = place() / 32;
    u32 lane = threadIdx.x % 32;
    if (warp >= (u64)sequences * heads * value_dim) return;
    u32 sequence = warp / (heads * value_dim), head = warp / value_dim % heads, v = warp % value_dim;
    u32 key_head = head / (heads / key_heads);
    float* own = state + ((u64)slots[sequence] * heads + head) * value_dim * key_dim + (u64)v * key_dim;
    for (u32 row = starts[sequence]; row < starts[sequence + 1]; row++) {
        const float* query = queries + ((u64)row * key_heads + key_head) * key_dim;
        const float* key = keys + ((u64)row * key_heads + key_head) * key_dim;
        const float* factors = decay + (u64)row * heads * (decay_columns ? key_dim : 1) + (u64)head * (decay_columns ? key_dim : 1);
        float written = values[((u64)row * heads + head) * value_dim + v];
        float read = 0.0f;
        const float* b = 0;
        if (update == 2) {
            const float* a = first + ((u64)row * heads + head) * key_dim;
            b = second + ((u64)row * heads + head) * key_dim;
            for (u32 i = lane; i < key_dim; i += 32) read = fmaf(own[i], a[i], read);
            read = warp_sum(read);
        }
        float recalled = 0.0f;
        for (u32 i = lane; i < key_dim; i += 32) {
            float value = own[i] * (decay_columns ? factors[i] : factors[0]);
            if (update == 2) value = fmaf(b[i], read, value);
            own[i] = value;
            recalled = fmaf(value, key[i], recalled);
        }
        if (update == 1) written = (written - warp_sum(recalled)) * first[(u64)row * heads + head];
        float result = 0.0f;
        for (u32 i = lane; i < key_dim; i += 32) {
            float value = fmaf(key[i], written, own[i]);
            own[i] = value;
            result = fmaf(value, query[i], result);
        }
        result = warp_sum(result);
        if (lane == 0) out[((u64)row * heads + head) * value_dim + v] = result;
    }
}

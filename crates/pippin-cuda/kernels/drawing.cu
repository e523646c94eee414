// Tokens from logits, as `pippin-sampling` draws them: the same arithmetic in the same order, so that the token is the same.
//
// The host adds what it sums over a vocabulary in blocks of 1,024 numbers, each in 16 lanes, and the blocks' sums one after the other in f64. Blocks of
// threads here have such a block each, and whoever is done last goes on with what the others have found. What is summed in another order than the host's
// (the masses of sorted candidates, and XTC's total) is summed in f64, in which sums of so few f32 numbers are exact unless these differ by a factor of 2^30.

// Numbers that the host sums together, and how many sums it has for them.
#define DRAW_BLOCK 1024
#define DRAW_LANES 16
#define DRAW_THREADS 256
#define DRAW_PARTS (DRAW_BLOCK / DRAW_THREADS)
// Parts of a row whose highest numbers bound what the k highest of the row are.
#define DRAW_SLICES (DRAW_THREADS / 32)
// The last kernel's threads, and the candidates that it sorts in shared memory.
#define DRAW_LAST_THREADS 512
#define DRAW_SORTED 4096
// Most blocks of a row.
#define DRAW_MOST_BLOCKS 512
#define DRAW_BINS 256
// So many candidates are sorted as they are.
#define DRAW_FEW 256
#define NO_TOKEN 0xffffffffu

// What `DrawRow::flags` holds, as in src/drawing.rs.
#define DRAWS 1u
#define REPORTS 2u
#define FILTERS 4u
#define NUCLEUS 8u
#define LEAST 16u
#define STRIKES 32u
#define HEAP 64u
#define CHANGES 128u
#define TOP 256u
#define ORDERED 512u

// A row's sampler.
struct DrawRow {
    // Its random number.
    double uniform;
    // The words of its mask, or null.
    const u32* mask;
    u32 mask_words;
    u32 flags;
    // Where its changes begin among the lists, and how many there are: token, bias, which penalties, how often it has come.
    u32 changes;
    u32 change_count;
    // So for the tokens that XTC does not remove.
    u32 kept;
    u32 kept_count;
    // Where its own copy of the logits is, in rows, if it changes them; where its candidates are.
    u32 copy;
    u32 list;
    float repetition;
    float presence;
    float frequency;
    // One over the temperature.
    float factor;
    float top_p;
    // The logarithm of min-p.
    float least;
    float threshold;
    u32 top_k;
    u32 keep;
    u32 unused;
};

// What is known of a row.
struct DrawState {
    double total;
    double target;
    float max;
    float bound;
    float normaliser;
    u32 is_sound;
    // Candidates so far.
    u32 count;
    u32 unused;
};

struct Drawing {
    const float* logits;
    float* copies;
    const DrawRow* rows;
    const u32* lists;
    DrawState* states;
    // For each block the highest key, and the token.
    u64* bests;
    u32* slices;
    // For each block its sum, and that of the weights.
    double* sums;
    double* masses;
    u64* candidates;
    // Of one row at a time.
    u64* scratch;
    // The lock of the scratch space, and for each row how many of its blocks are done.
    u32* counters;
    u32* tokens;
    float* logprobs;
    // The host's copies: all tokens, then all log-probabilities.
    u32* host;
    u32 columns;
    u32 blocks;
    u32 room;
    u32 row_count;
};

// Numbers as integers in the same order. A NaN is beyond all of them.
__device__ __forceinline__ u32 key_of(float x) {
    u32 bits = __float_as_uint(x);
    if (x != x) return 0xffffffffu;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float of_key(u32 key) { return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key); }
#define KEY_OF_MINUS_INFINITY 0x007fffffu
#define KEY_OF_INFINITY 0xff800000u

// A candidate: ascending order is that of the likeliest first, of equals the lowest token.
// Zeros of either sign are equal.
__device__ __forceinline__ u64 candidate_of(float x, u32 token) { return (u64)~key_of(x + 0.0f) << 32 | token; }
__device__ __forceinline__ float logit_of(u64 candidate) { return of_key(~(u32)(candidate >> 32)); }

// `exp` of pippin-sampling's vector.rs, operation by operation.
__device__ __forceinline__ float exp_below(float x) {
    float clamped = x < -87.0f ? -87.0f : x;
    float n = __fadd_rn(__fadd_rn(__fmul_rn(clamped, __uint_as_float(0x3fb8aa3bu)), 12582912.0f), -12582912.0f);
    float r = __fadd_rn(clamped, -__fmul_rn(n, 0.693359375f));
    r = __fadd_rn(r, -__fmul_rn(n, __uint_as_float(0xb95e8083u)));
    float p = __uint_as_float(0x39506967u);
    p = __fadd_rn(__fmul_rn(p, r), __uint_as_float(0x3ab743ceu));
    p = __fadd_rn(__fmul_rn(p, r), __uint_as_float(0x3c088908u));
    p = __fadd_rn(__fmul_rn(p, r), __uint_as_float(0x3d2aa9c1u));
    p = __fadd_rn(__fmul_rn(p, r), __uint_as_float(0x3e2aaaaau));
    p = __fadd_rn(__fmul_rn(p, r), 0.5f);
    float y = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
    float scale = __uint_as_float((u32)((int)n + 127) << 23);
    return x < -87.0f ? 0.0f : __fmul_rn(y, scale);
}

__device__ __forceinline__ float weight_of(float x, float max, float factor) { return exp_below(__fmul_rn(__fadd_rn(x, -max), factor)); }

// What others have written a moment ago.
template <typename T> __device__ __forceinline__ T fresh(const T* at) { return *(const volatile T*)at; }

// Whether this is the last of so many blocks of threads to come here. The counter is zero again then.
__device__ bool is_last_of(u32* counter, u32 blocks) {
    __shared__ u32 ticket;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        ticket = atomicAdd(counter, 1);
        if (ticket == blocks - 1) *counter = 0;
    }
    __syncthreads();
    bool is_last = ticket == blocks - 1;
    if (is_last) __threadfence();
    return is_last;
}

// The sum over a block of threads, to every thread.
__device__ u32 draw_count(u32 value) {
    __shared__ u32 sums[32];
    value = __reduce_add_sync(FULL, value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    u32 sum = 0;
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) sum += sums[warp];
    return sum;
}

__device__ u32 draw_highest_of(u32 value) {
    __shared__ u32 values[32];
    value = __reduce_max_sync(FULL, value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) values[threadIdx.x / 32] = value;
    __syncthreads();
    u32 highest = 0;
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) highest = max(highest, values[warp]);
    return highest;
}

// The sum of what threads before this one have, and of all: `before`, `all`.
__device__ void draw_scan(double value, double& before, double& all) {
    __shared__ double sums[32];
    u32 lane = threadIdx.x % 32, own = threadIdx.x / 32;
    double inclusive = value;
    for (int step = 1; step < 32; step <<= 1) {
        double other = __shfl_up_sync(FULL, inclusive, step);
        if (lane >= step) inclusive += other;
    }
    double exclusive = __shfl_up_sync(FULL, inclusive, 1);
    if (lane == 0) exclusive = 0.0;
    __syncthreads();
    if (lane == 31) sums[own] = inclusive;
    __syncthreads();
    before = 0.0;
    all = 0.0;
    for (u32 warp = 0; warp < blockDim.x / 32; warp++) {
        if (warp == own) before = all;
        all += sums[warp];
    }
    before += exclusive;
}

__device__ __forceinline__ void tell(const Drawing& d, u32 row, u32 token, float logprob) {
    d.tokens[row] = token;
    d.logprobs[row] = logprob;
    d.host[row] = token;
    d.host[d.row_count + row] = __float_as_uint(logprob);
}

__device__ __forceinline__ const float* draw_logits(const Drawing& d, const DrawRow& r, u32 row) {
    return r.flags & CHANGES ? d.copies + (u64)r.copy * d.columns : d.logits + (u64)row * d.columns;
}

// `change` of processors.rs: what was finite stays so.
__device__ __forceinline__ float changed(float from, float to) {
    if (!(fabsf(from) < INFINITE)) return to;
    const float most = __uint_as_float(0x7f7fffffu);
    return to < -most ? -most : to > most ? most : to;
}

__device__ float draw_change(const DrawRow& r, const u32* change, float x) {
    u32 kinds = change[2];
    if (kinds & 1u) x = changed(x, __fadd_rn(x, __uint_as_float(change[1])));
    if (kinds & 2u) x = changed(x, x < 0.0f ? __fmul_rn(x, r.repetition) : __fdiv_rn(x, r.repetition));
    if (kinds & 4u) x = changed(x, __fadd_rn(x, -r.presence));
    for (u32 time = 0; time < change[3]; time++) x = changed(x, __fadd_rn(x, -r.frequency));
    return x;
}

// At most the k-th highest of so many keys (16 bits of it), or minus infinity. Keys beyond what the threads can hold are taken together.
#define DRAW_HELD 8
__device__ float draw_bound(const u32* keys, u32 count, u32 k) {
    __shared__ u32 sums[2][DRAW_THREADS / 32];
    u32 held[DRAW_HELD], found = 0;
    if (k > min(count, (u32)DRAW_HELD * DRAW_THREADS)) return -INFINITE;
    #pragma unroll
    for (u32 i = 0; i < DRAW_HELD; i++) {
        held[i] = 0;
        for (u32 j = i * DRAW_THREADS + threadIdx.x; j < count; j += DRAW_HELD * DRAW_THREADS) held[i] = max(held[i], fresh(keys + j));
    }
    // Two bits at a time. Of three numbers to compare with, a warp counts each to 256 at most.
    for (u32 bit = 30; bit >= 16; bit -= 2) {
        u32 own = 0;
        #pragma unroll
        for (u32 i = 0; i < DRAW_HELD; i++) {
            for (u32 probe = 1; probe < 4; probe++) own += (held[i] >= (found | probe << bit)) << 10 * (probe - 1);
        }
        own = __reduce_add_sync(FULL, own);
        u32* sum = sums[bit / 2 % 2];
        if (threadIdx.x % 32 == 0) sum[threadIdx.x / 32] = own;
        __syncthreads();
        u32 counts[3] = {0, 0, 0};
        for (u32 warp = 0; warp < DRAW_THREADS / 32; warp++) {
            for (u32 probe = 0; probe < 3; probe++) counts[probe] += sum[warp] >> 10 * probe & 0x3ff;
        }
        u32 bits = counts[2] >= k ? 3 : counts[1] >= k ? 2 : counts[0] >= k ? 1 : 0;
        found |= bits << bit;
    }
    __syncthreads();
    return found <= KEY_OF_MINUS_INFINITY ? -INFINITE : of_key(found);
}

// The first pass: masks and penalties, and the highest logit of each row.
extern "C" __global__ void draw_highest(Drawing d) {
    begin();
    __shared__ float own[DRAW_BLOCK];
    __shared__ u64 bests[DRAW_THREADS / 32];
    u32 row = blockIdx.y, thread = threadIdx.x, warp = thread / 32;
    const DrawRow& r = d.rows[row];
    u64 best = 0;
    for (u32 block = blockIdx.x; block < d.blocks; block += gridDim.x) {
        u32 first = block * DRAW_BLOCK, count = min((u32)DRAW_BLOCK, d.columns - first);
        const float* from = d.logits + (u64)row * d.columns + first;
        float x[DRAW_PARTS];
        for (u32 part = 0; part < DRAW_PARTS; part++) {
            u32 i = part * DRAW_THREADS + thread;
            x[part] = i < count ? from[i] : -INFINITE;
        }
        if (r.flags & CHANGES) {
            for (u32 part = 0; part < DRAW_PARTS; part++) {
                u32 i = part * DRAW_THREADS + thread, token = first + i;
                bool is_allowed = !r.mask || (token / 32 < r.mask_words && (r.mask[token / 32] >> token % 32 & 1));
                own[i] = is_allowed ? x[part] : -INFINITE;
            }
            __syncthreads();
            const u32* changes = d.lists + r.changes;
            u32 low = 0, high = r.change_count;
            while (low < high) {
                u32 middle = (low + high) / 2;
                if (changes[4 * middle] < first) low = middle + 1; else high = middle;
            }
            for (u32 i = low + thread; i < r.change_count; i += DRAW_THREADS) {
                u32 token = changes[4 * i];
                if (token >= first + count) break;
                own[token - first] = draw_change(r, changes + 4 * i, own[token - first]);
            }
            __syncthreads();
            float* to = d.copies + (u64)r.copy * d.columns + first;
            for (u32 part = 0; part < DRAW_PARTS; part++) {
                u32 i = part * DRAW_THREADS + thread;
                x[part] = own[i];
                if (i < count) to[i] = x[part];
            }
            __syncthreads();
        }
        // Zeros of either sign are equal.
        u32 key = 0, token = NO_TOKEN;
        for (u32 part = 0; part < DRAW_PARTS; part++) {
            u32 i = part * DRAW_THREADS + thread, other = key_of(x[part] + 0.0f);
            if (i < count && other > key) {
                key = other;
                token = first + i;
            }
        }
        u32 highest = __reduce_max_sync(FULL, key);
        token = __reduce_min_sync(FULL, key == highest ? token : NO_TOKEN);
        best = max(best, (u64)highest << 32 | (u32)~token);
        if (thread % 32 == 0) d.slices[((u64)row * d.blocks + block) * DRAW_SLICES + warp] = highest;
    }
    if (thread % 32 == 0) bests[warp] = best;
    __syncthreads();
    if (thread == 0) {
        for (u32 other = 0; other < DRAW_THREADS / 32; other++) best = max(best, bests[other]);
        d.bests[(u64)row * gridDim.x + blockIdx.x] = best;
    }
    if (!is_last_of(d.counters + 1 + row, gridDim.x)) return;

    best = 0;
    for (u32 i = thread; i < gridDim.x; i += DRAW_THREADS) best = max(best, fresh(d.bests + (u64)row * gridDim.x + i));
    u32 highest = draw_highest_of((u32)(best >> 32));
    u32 token = ~draw_highest_of((u32)(best >> 32) == highest ? (u32)best : 0);
    bool is_sound = highest > KEY_OF_MINUS_INFINITY && highest < KEY_OF_INFINITY;
    // What is impossible counts only where candidates stand in the order of their tokens.
    float top = of_key(highest), bound = r.flags & ORDERED ? __uint_as_float(0xff7fffffu) : -INFINITE;
    if (is_sound && r.flags & FILTERS) {
        const u32* slices = d.slices + (u64)row * d.blocks * DRAW_SLICES;
        u32 count = d.blocks * DRAW_SLICES;
        // XTC removes from the top what the k highest would be of.
        // One more than those that stay: whether there are more decides about their order.
        if ((r.flags & TOP) && !(r.flags & STRIKES)) bound = fmaxf(bound, draw_bound(slices, count, r.top_k + 1));
        if (r.flags & LEAST) {
            float least = __fadd_rn(top, r.least);
            if (r.keep > 1) least = fminf(least, draw_bound(slices, count, r.keep));
            bound = fmaxf(bound, least);
        }
    }
    if (thread == 0) {
        DrawState& s = d.states[row];
        s.max = top;
        s.bound = fminf(bound, top);
        s.normaliser = 0.0f;
        s.is_sound = is_sound;
        s.count = 0;
        if (!is_sound) tell(d, row, NO_TOKEN, 0.0f);
        else if (!(r.flags & (DRAWS | REPORTS))) tell(d, row, token, 0.0f);
        // Until its log-probability is known.
        else d.tokens[row] = token;
    }
}

// The sum of up to 1,024 numbers in shared memory as the host has it; to the first thread.
__device__ double draw_sum(const float* numbers, u32 count) {
    __shared__ float lanes[DRAW_LANES];
    __syncthreads();
    if (threadIdx.x < DRAW_LANES) {
        float sum = 0.0f;
        #pragma unroll 16
        for (u32 i = threadIdx.x; i < count; i += DRAW_LANES) sum = __fadd_rn(sum, numbers[i]);
        lanes[threadIdx.x] = sum;
    }
    __syncthreads();
    float sum = 0.0f;
    if (threadIdx.x == 0) {
        for (u32 lane = 0; lane < DRAW_LANES; lane++) sum = __fadd_rn(sum, lanes[lane]);
    }
    return (double)sum;
}

// The sum of blocks' sums, one after the other.
__device__ double draw_total(const double* masses, u32 blocks) {
    double total = 0.0;
    #pragma unroll 8
    for (u32 block = 0; block < blocks; block++) total = __dadd_rn(total, masses[block]);
    return total;
}

// The block of weights that a random number falls into, for one thread; what is left of the number goes to `target`.
__device__ u32 draw_among_blocks(const double* masses, u32 blocks, double uniform, double& target) {
    u32 last = NO_TOKEN;
    target = __dmul_rn(uniform, draw_total(masses, blocks));
    for (u32 block = 0; block < blocks; block++) {
        double mass = masses[block];
        if (mass <= 0.0) continue;
        last = block;
        if (target < mass) break;
        target = __dadd_rn(target, -mass);
    }
    return last;
}

// The place of the weight that is drawn from a block of so many, a multiple of 8, in shared memory, as the host finds it; for one thread.
__device__ u32 draw_within(const float* weights, u32 count, double target) {
    for (u32 i = 0; i < count; i += 8) {
        double left[8];
        for (u32 j = 0; j < 8; j++) left[j] = __dadd_rn(j ? left[j - 1] : target, -(double)weights[i + j]);
        if (left[7] < 0.0) {
            for (u32 j = 0; j < 8; j++) {
                if (left[j] < 0.0) return i + j;
            }
        }
        target = left[7];
    }
    // Rounding: the last that has any weight.
    while (count > 0 && !(weights[count - 1] > 0.0f)) count--;
    return count - 1;
}

// Where the sum of numbers that are not negative passes a target, and what is left of that before it, to every thread. The numbers are added in another order
// than the host's: NO_TOKEN where that might matter, which is hardly ever, or where the sum does not get there. With `uniform` the target is that share of the sum.
template <typename Numbers>
__device__ u32 draw_crossing(Numbers numbers, u32 count, double uniform, double& target, double& margin) {
    __shared__ u32 found, is_doubtful;
    __shared__ double left;
    u32 each = (count + blockDim.x - 1) / blockDim.x, first = threadIdx.x * each, end = min(count, first + each);
    double own = 0.0, before, all;
    for (u32 i = first; i < end; i++) own += (double)numbers[i];
    if (threadIdx.x == 0) {
        found = NO_TOKEN;
        is_doubtful = 0;
    }
    draw_scan(own, before, all);
    if (uniform >= 0.0) {
        target = uniform * all;
        margin = all * 1e-12;
    }
    double at = target - before;
    for (u32 i = first; i < end; i++) {
        double number = (double)numbers[i], next = at - number;
        if (number > 0.0) {
            if (fabs(at) <= margin || fabs(next) <= margin) {
                is_doubtful = 1;
            } else if (at > 0.0 && next < 0.0) {
                found = i;
                left = at;
            }
        }
        at = next;
    }
    __syncthreads();
    u32 result = is_doubtful ? NO_TOKEN : found;
    target = left;
    __syncthreads();
    return result;
}

// The number that is drawn from so many weights with a random number, to every thread: `masses` are the sums of their blocks, and `weigh` puts the weights of
// a block into shared memory, with zeros behind them.
template <typename Weigh>
__device__ u32 draw_weight(const double* masses, u32 count, double uniform, float* weights, Weigh weigh) {
    u32 blocks = (count + DRAW_BLOCK - 1) / DRAW_BLOCK;
    __shared__ u32 chosen;
    __shared__ double left;
    double target = 0.0, margin = 0.0;
    u32 block = NO_TOKEN;
    if (blocks > 8) {
        block = draw_crossing(masses, blocks, uniform, target, margin);
        if (block != NO_TOKEN) {
            weigh(block);
            __syncthreads();
            u32 within = draw_crossing(weights, DRAW_BLOCK, -1.0, target, margin);
            if (within != NO_TOKEN) return block * DRAW_BLOCK + within;
        }
    }
    if (threadIdx.x == 0) chosen = draw_among_blocks(masses, blocks, uniform, left);
    __syncthreads();
    block = chosen;
    target = left;
    margin = masses[block == NO_TOKEN ? 0 : block] * 1e-12;
    if (block == NO_TOKEN) return NO_TOKEN;
    weigh(block);
    __syncthreads();
    if (blocks <= 8) {
        double aim = target;
        u32 within = draw_crossing(weights, DRAW_BLOCK, -1.0, aim, margin);
        if (within != NO_TOKEN) return block * DRAW_BLOCK + within;
    }
    if (threadIdx.x == 0) chosen = draw_within(weights, min((u32)DRAW_BLOCK, (count - block * DRAW_BLOCK + 7) / 8 * 8), target);
    __syncthreads();
    return block * DRAW_BLOCK + chosen;
}

// The second pass: sums. Also the draw, where nothing is filtered.
extern "C" __global__ void draw_sums(Drawing d) {
    begin();
    __shared__ float own[DRAW_BLOCK];
    __shared__ double masses[DRAW_MOST_BLOCKS];
    u32 row = blockIdx.y, thread = threadIdx.x;
    const DrawRow& r = d.rows[row];
    DrawState& s = d.states[row];
    bool sums = r.flags & (REPORTS | NUCLEUS), draws = (r.flags & DRAWS) && !(r.flags & FILTERS);
    if (!s.is_sound || !(sums || draws)) return;
    const float* x = draw_logits(d, r, row);
    float max = s.max;
    for (u32 block = blockIdx.x; block < d.blocks; block += gridDim.x) {
        u32 first = block * DRAW_BLOCK, count = min((u32)DRAW_BLOCK, d.columns - first);
        u64 place = (u64)row * d.blocks + block;
        if (sums) {
            for (u32 i = thread; i < count; i += DRAW_THREADS) own[i] = exp_below(__fadd_rn(x[first + i], -max));
            double sum = draw_sum(own, count);
            if (thread == 0) d.sums[place] = sum;
        }
        if (draws) {
            __syncthreads();
            for (u32 i = thread; i < count; i += DRAW_THREADS) own[i] = weight_of(x[first + i], max, r.factor);
            double sum = draw_sum(own, count);
            if (thread == 0) d.masses[place] = sum;
        }
        __syncthreads();
    }
    if (!is_last_of(d.counters + 1 + row, gridDim.x)) return;

    float normaliser = 0.0f;
    if (sums) {
        for (u32 block = thread; block < d.blocks; block += DRAW_THREADS) masses[block] = fresh(d.sums + (u64)row * d.blocks + block);
        __syncthreads();
        if (thread == 0) {
            double total = draw_total(masses, d.blocks);
            normaliser = __fadd_rn(max, (float)log(total));
            s.total = total;
            s.normaliser = normaliser;
            if (r.flags & NUCLEUS) {
                double target = __dmul_rn((double)r.top_p, total);
                s.target = target;
                // Tokens with less than this have less all together than is left out.
                float share = (float)((total - target) / d.columns);
                float bound = share > 0.0f ? max + logf(share) - 2e-3f : -INFINITE;
                s.bound = fminf(fmaxf(s.bound, bound), max);
            }
            if (!(r.flags & DRAWS)) tell(d, row, d.tokens[row], __fadd_rn(max, -normaliser));
        }
        __syncthreads();
    }
    if (!draws) return;
    for (u32 block = thread; block < d.blocks; block += DRAW_THREADS) masses[block] = fresh(d.masses + (u64)row * d.blocks + block);
    __syncthreads();
    u32 token = draw_weight(masses, d.columns, r.uniform, own, [&](u32 block) {
        u32 first = block * DRAW_BLOCK;
        for (u32 i = thread; i < DRAW_BLOCK; i += DRAW_THREADS) own[i] = first + i < d.columns ? weight_of(x[first + i], max, r.factor) : 0.0f;
    });
    if (thread == 0) tell(d, row, token, token == NO_TOKEN ? 0.0f : __fadd_rn(x[token], -normaliser));
}

// Sorts up to DRAW_SORTED numbers in shared memory, from stretches of so many that are sorted in turn already: the first step of a merge compares
// with the mirrored place, so that all are in ascending order and what is missing at the end counts as the highest. `from` is 2 where nothing is sorted;
// 0 says that only the last steps of a longer merge are left.
__device__ __forceinline__ void sort_pairs(u64* list, u32 count, u32 half, bool is_mirrored, u32 threads) {
    for (u32 pair = threadIdx.x; pair < DRAW_SORTED / 2; pair += threads) {
        u32 offset = pair & (half - 1), base = 2 * (pair - offset), low = base + offset;
        u32 high = is_mirrored ? base + 2 * half - 1 - offset : low + half;
        if (low >= count) break;
        if (high >= count) continue;
        u64 a = list[low], b = list[high];
        if (a > b) {
            list[low] = b;
            list[high] = a;
        }
    }
}
__device__ void sort_shared(u64* list, u32 count, u32 from) {
    if (from && count <= 64) {
        // One warp has all.
        if (threadIdx.x < 32) {
            for (u32 size = from; size / 2 < count; size *= 2) {
                for (u32 half = size / 2; half > 0; half /= 2) {
                    sort_pairs(list, count, half, half == size / 2, 32);
                    __syncwarp();
                }
            }
        }
        __syncthreads();
        return;
    }
    if (from && count <= DRAW_FEW) {
        // So have a few of them.
        if (threadIdx.x < DRAW_FEW / 2) {
            for (u32 size = from; size / 2 < count; size *= 2) {
                for (u32 half = size / 2; half > 0; half /= 2) {
                    sort_pairs(list, count, half, half == size / 2, DRAW_FEW / 2);
                    asm volatile("bar.sync 1, %0;" : : "n"(DRAW_FEW / 2) : "memory");
                }
            }
        }
        __syncthreads();
        return;
    }
    for (u32 size = from ? from : DRAW_SORTED; size <= DRAW_SORTED && (!from || size / 2 < count); size *= 2) {
        for (u32 half = size / 2; half > 0; half /= 2) {
            sort_pairs(list, count, half, from && half == size / 2, blockDim.x);
            __syncthreads();
        }
    }
}

// Sorts numbers in the device's memory, a stretch at a time in shared memory.
__device__ void sort_long(u64* at, u32 count, u64* list) {
    for (u64 size = DRAW_SORTED; size / 2 < count || size == DRAW_SORTED; size *= 2) {
        if (size > DRAW_SORTED) {
            for (u64 half = size / 2; half >= DRAW_SORTED; half /= 2) {
                u64 pairs = (count + size - 1) / size * (size / 2);
                for (u64 pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
                    u64 low = pair / half * 2 * half + pair % half;
                    u64 high = half == size / 2 ? low - pair % half + size - 1 - pair % half : low + half;
                    if (high >= count) continue;
                    u64 a = at[low], b = at[high];
                    if (a > b) {
                        at[low] = b;
                        at[high] = a;
                    }
                }
                __syncthreads();
            }
        }
        for (u32 first = 0; first < count; first += DRAW_SORTED) {
            u32 own = min((u32)DRAW_SORTED, count - first);
            for (u32 i = threadIdx.x; i < own; i += blockDim.x) list[i] = at[first + i];
            __syncthreads();
            sort_shared(list, own, size == DRAW_SORTED ? 2 : 0);
            for (u32 i = threadIdx.x; i < own; i += blockDim.x) at[first + i] = list[i];
            __syncthreads();
        }
    }
}

__device__ void sort_candidates(u64* at, u32 count, u64* list) {
    if (at == list) sort_shared(list, count, 2);
    else sort_long(at, count, list);
}

// Which of the bins a logit is in, the likeliest first; they are wider the farther they are from the highest.
__device__ __forceinline__ u32 bin_of(float x, float max) {
    float distance = max - x;
    return min((__float_as_uint(1.0f + distance) - 0x3f800000u) >> 18, (u32)DRAW_BINS - 1);
}

// Each of so many candidates to one thread; several are on their way at once. In the place of those that are not there stands a zero, whose logit is a NaN.
template <typename Source, typename Use>
__device__ __forceinline__ void draw_each(u32 count, Source source, Use use) {
    for (u32 first = threadIdx.x; first < count; first += 4 * blockDim.x) {
        u64 own[4];
        #pragma unroll
        for (u32 i = 0; i < 4; i++) own[i] = first + i * blockDim.x < count ? source(first + i * blockDim.x) : 0;
        #pragma unroll
        for (u32 i = 0; i < 4; i++) use(own[i]);
    }
}

// The third pass: candidates. Who is done last sorts them as far as they are in order on the host, leaves out what the filters leave out, and draws.
extern "C" __global__ void draw_candidates(Drawing d) {
    begin();
    __shared__ u64 list[DRAW_SORTED];
    __shared__ double masses[DRAW_MOST_BLOCKS];
    __shared__ float weights[DRAW_BLOCK];
    __shared__ float lanes[DRAW_LAST_THREADS];
    __shared__ u32 found, base;
    u32 row = blockIdx.y, thread = threadIdx.x;
    const DrawRow& r = d.rows[row];
    DrawState& s = d.states[row];
    if (!s.is_sound || !(r.flags & DRAWS) || !(r.flags & FILTERS)) return;
    const float* x = draw_logits(d, r, row);
    float max_logit = s.max, bound = s.bound, normaliser = s.normaliser;
    u64* candidates = d.candidates + (u64)r.list * d.room;
    for (u32 block = blockIdx.x; block < d.blocks; block += gridDim.x) {
        u32 first = block * DRAW_BLOCK, count = min((u32)DRAW_BLOCK, d.columns - first);
        if (thread == 0) found = 0;
        __syncthreads();
        float own[DRAW_BLOCK / DRAW_LAST_THREADS];
        u32 places[DRAW_BLOCK / DRAW_LAST_THREADS];
        for (u32 part = 0; part < DRAW_BLOCK / DRAW_LAST_THREADS; part++) {
            u32 i = part * DRAW_LAST_THREADS + thread;
            own[part] = i < count ? x[first + i] : -INFINITE;
            places[part] = i < count && own[part] >= bound ? atomicAdd(&found, 1) : NO_TOKEN;
        }
        __syncthreads();
        if (thread == 0) base = found ? atomicAdd(&s.count, found) : 0;
        __syncthreads();
        for (u32 part = 0; part < DRAW_BLOCK / DRAW_LAST_THREADS; part++) {
            u32 at = base + places[part];
            if (places[part] != NO_TOKEN && at < d.room) candidates[at] = candidate_of(own[part], first + part * DRAW_LAST_THREADS + thread);
        }
    }
    if (!is_last_of(d.counters + 1 + row, gridDim.x)) return;

    bool has_nucleus = r.flags & NUCLEUS, has_least = r.flags & LEAST, has_top = r.flags & TOP;
    bool is_heap = r.flags & HEAP, strikes = r.flags & STRIKES;
    u32 all = fresh(&s.count), bins = DRAW_BINS - 1, count;
    bool is_listed = all <= d.room;
    u32 sources = is_listed ? all : d.columns;
    auto source = [&](u32 i) { return is_listed ? fresh(candidates + i) : candidate_of(x[i], i); };
    if (all > DRAW_FEW && (has_nucleus || (has_top && !strikes))) {
        // The bound was low: count by bins. Shares of the total are whole numbers, rounded down, of 2^31.
        u32* counts = (u32*)masses;
        u32* shares = counts + DRAW_BINS;
        for (u32 i = thread; i < 2 * DRAW_BINS; i += blockDim.x) counts[i] = 0;
        __syncthreads();
        float scale = has_nucleus ? (float)(2147483648.0 / s.total) : 0.0f;
        draw_each(sources, source, [&](u64 one) {
            float own = logit_of(one);
            if (!(own >= bound)) return;
            u32 bin = bin_of(own, max_logit);
            atomicAdd(counts + bin, 1);
            if (has_nucleus) atomicAdd(shares + bin, (u32)(exp_below(own - max_logit) * scale));
        });
        __syncthreads();
        if (thread == 0) found = DRAW_BINS - 1;
        double before, sum, number = thread < DRAW_BINS ? counts[thread] : 0.0, share = thread < DRAW_BINS ? shares[thread] : 0.0;
        draw_scan(number, before, sum);
        bool is_enough = has_top && !strikes && before + number > r.top_k;
        draw_scan(share, before, sum);
        is_enough |= has_nucleus && before + share >= r.top_p * 1.00001 * 2147483648.0;
        if (is_enough && thread < DRAW_BINS) atomicMin(&found, thread);
        __syncthreads();
        bins = found;
        __syncthreads();
    }
    // Those that are left go to shared memory, or, where they are too many, to the scratch space in the order of their tokens.
    if (thread == 0) found = 0;
    __syncthreads();
    draw_each(sources, source, [&](u64 own) {
        float logit = logit_of(own);
        if (!(logit >= bound) || bin_of(logit, max_logit) > bins) return;
        u32 at = atomicAdd(&found, 1);
        if (at < DRAW_SORTED) list[at] = own;
    });
    __syncthreads();
    count = found;
    __syncthreads();
    u64* at = list;
    bool is_ordered = r.flags & ORDERED;
    u32* lock = d.counters;
    if (count > DRAW_SORTED) {
        at = d.scratch;
        if (thread == 0) {
            while (atomicCAS(lock, 0, 1) != 0) {}
            found = 0;
        }
        __syncthreads();
        __threadfence();
        for (u32 first = 0; first < d.columns; first += blockDim.x) {
            u32 token = first + thread;
            float logit = token < d.columns ? x[token] : -INFINITE;
            bool is_one = token < d.columns && logit >= bound && bin_of(logit, max_logit) <= bins;
            u32 mine = __ballot_sync(FULL, is_one), before = 0, total = 0;
            if (thread % 32 == 0) lanes[thread / 32] = __uint_as_float(__popc(mine));
            __syncthreads();
            for (u32 warp = 0; warp < blockDim.x / 32; warp++) {
                if (warp == thread / 32) before = total;
                total += __float_as_uint(lanes[warp]);
            }
            u32 start = found;
            if (is_one) at[start + before + __popc(mine & ((1u << thread % 32) - 1))] = candidate_of(logit, token);
            __syncthreads();
            if (thread == 0) found = start + total;
            __syncthreads();
        }
    } else if (!is_ordered) {
        // In the order of their tokens.
        for (u32 i = thread; i < count; i += blockDim.x) list[i] = list[i] << 32 | list[i] >> 32;
        __syncthreads();
        sort_shared(list, count, 2);
        for (u32 i = thread; i < count; i += blockDim.x) list[i] = list[i] << 32 | list[i] >> 32;
        __syncthreads();
    }
    if (is_ordered) {
        sort_candidates(at, count, list);
        u32 kept = count;
        if (is_heap) kept = min(kept, r.top_k);
        if (has_nucleus) {
            // A candidate stays while the mass of those before it is below the target; equals of the last one stay too.
            if (thread == 0) found = count;
            __syncthreads();
            double mass = 0.0, target = s.target;
            for (u32 first = 0; first < count; first += blockDim.x) {
                u32 i = first + thread;
                float logit = i < count ? logit_of(at[i]) : 0.0f;
                double before, sum;
                draw_scan(i < count ? (double)exp_below(__fadd_rn(logit, -max_logit)) : 0.0, before, sum);
                if (i < count && i > 0 && mass + before >= target && logit_of(at[i - 1]) != logit) atomicMin(&found, i);
                mass += sum;
                __syncthreads();
                if (found < first + blockDim.x) break;
            }
            kept = min(kept, found);
            __syncthreads();
        }
        if (has_least && r.keep > 1) {
            float least = __fadd_rn(max_logit, r.least);
            u32 own = 0;
            for (u32 i = thread; i < count; i += blockDim.x) own += logit_of(at[i]) >= least;
            kept = min(kept, max(draw_count(own), r.keep));
        }
        count = min(count, kept);
    }
    if (strikes) {
        double own = 0.0, before, total;
        for (u32 i = thread; i < count; i += blockDim.x) own += (double)exp_below(__fadd_rn(logit_of(at[i]), -max_logit));
        draw_scan(own, before, total);
        u32 lowest = 0;
        for (u32 i = thread; i < count; i += blockDim.x) {
            float logit = logit_of(at[i]);
            float probability = (float)((double)exp_below(__fadd_rn(logit, -max_logit)) / total);
            if (probability > r.threshold) lowest = max(lowest, ~key_of(logit));
        }
        lowest = draw_highest_of(lowest);
        float least = lowest ? of_key(~lowest) : INFINITE;
        if (thread == 0) found = 0;
        __syncthreads();
        for (u32 first = 0; first < count; first += blockDim.x) {
            u32 i = first + thread;
            u64 one = i < count ? at[i] : 0;
            bool stays = i < count && logit_of(one) <= least;
            if (i < count && !stays) {
                for (u32 j = 0; j < r.kept_count; j++) stays |= d.lists[r.kept + j] == (u32)one;
            }
            u32 mine = __ballot_sync(FULL, stays), before = 0, total = 0;
            if (thread % 32 == 0) lanes[thread / 32] = __uint_as_float(__popc(mine));
            __syncthreads();
            for (u32 warp = 0; warp < blockDim.x / 32; warp++) {
                if (warp == thread / 32) before = total;
                total += __float_as_uint(lanes[warp]);
            }
            u32 start = found;
            if (stays) at[start + before + __popc(mine & ((1u << thread % 32) - 1))] = one;
            __syncthreads();
            if (thread == 0) found = start + total;
            __syncthreads();
        }
        count = found;
        __syncthreads();
    }
    if (has_top && count > r.top_k) {
        if (!is_ordered) sort_candidates(at, count, list);
        count = r.top_k;
    }
    // XTC may have removed the highest itself.
    u32 highest = 0;
    for (u32 i = thread; i < count; i += blockDim.x) highest = max(highest, ~(u32)(at[i] >> 32));
    max_logit = of_key(draw_highest_of(highest));
    // From here on a candidate is its weight and its token.
    for (u32 i = thread; i < count; i += blockDim.x) at[i] = (u64)__float_as_uint(weight_of(logit_of(at[i]), max_logit, r.factor)) << 32 | (u32)at[i];
    __syncthreads();
    u32 blocks = (count + DRAW_BLOCK - 1) / DRAW_BLOCK;
    for (u32 first = 0; first < blocks; first += DRAW_LAST_THREADS / DRAW_LANES) {
        u32 block = first + thread / DRAW_LANES, end = min(count, (block + 1) * DRAW_BLOCK);
        float sum = 0.0f;
        if (block < blocks) {
            #pragma unroll 8
            for (u32 i = block * DRAW_BLOCK + thread % DRAW_LANES; i < end; i += DRAW_LANES) sum = __fadd_rn(sum, __uint_as_float((u32)(at[i] >> 32)));
        }
        lanes[thread] = sum;
        __syncthreads();
        if (thread % DRAW_LANES == 0 && block < blocks) {
            float mass = 0.0f;
            for (u32 lane = 0; lane < DRAW_LANES; lane++) mass = __fadd_rn(mass, lanes[thread + lane]);
            masses[block] = (double)mass;
        }
        __syncthreads();
    }
    u32 chosen = draw_weight(masses, count, r.uniform, weights, [&](u32 block) {
        u32 first = block * DRAW_BLOCK;
        for (u32 i = thread; i < DRAW_BLOCK; i += blockDim.x) weights[i] = first + i < count ? __uint_as_float((u32)(at[first + i] >> 32)) : 0.0f;
    });
    if (thread == 0) {
        u32 token = chosen == NO_TOKEN ? NO_TOKEN : (u32)at[chosen];
        tell(d, row, token, token == NO_TOKEN ? 0.0f : __fadd_rn(x[token], -normaliser));
    }
    if (at != list) {
        __threadfence();
        __syncthreads();
        if (thread == 0) atomicExch(lock, 0);
    }
}

// A copy of indices with others in their places.
extern "C" __global__ void place_indices(u32* out, const u32* into, u32 count, const u32* at, const u32* values, u32 placed) {
    begin();
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) out[i] = into[i];
    __syncthreads();
    for (u32 i = threadIdx.x; i < placed; i += blockDim.x) {
        if (at[i] < count) out[at[i]] = values[i];
    }
}

extern "C" __global__ void choose_indices(u32* out, const u32* choice, const u32* from, const u32* otherwise, u32 count, u32 limit) {
    begin();
    u64 i = place();
    if (i < count) out[i] = choice[i] < limit ? from[choice[i]] : otherwise[i];
}

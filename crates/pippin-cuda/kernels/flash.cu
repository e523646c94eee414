// Attention over a paged cache on tensor cores, for what most models have: keys and values of one width, in 16 bits or bytes.
//
// A sequence's keys are taken in *splits* of SPLIT at multiples of it. A split has a softmax of its own: the highest score, the sum of the
// exponentials, the mixed values. What the splits give is merged in ascending order. `flash_split` computes the splits of one row apart
// from each other and merges them last; `flash_rows` has many rows and takes their splits one after the other. Both do the same to the bit:
// whatever a row does not see counts exactly nothing, and an element of a product of tiles depends on its own row and column only.
//
// Queries and shares are f32. So that nothing is lost of them, they are taken in parts of 16 bits whose sum they are: a warp's 16 rows are 8
// queries and the rests of these 8, and for bf16, whose two parts hold 16 bits only, the rests' rests in another turn.

#define SPLIT 128
#define SPLIT_WARPS 8
// Keys that are added up together, in a split.
#define PIECE 16
#define PIECES (SPLIT / PIECE)
#define ROWS_WARPS 4
#define LOG2_E 1.44269504f
// Where multiprocessors have much shared memory, a warp with many rows takes two sets of 8 queries, if their heads are not too wide.
// Measured on no device yet, and off until then, as in src/flash.rs.
#define TWO_SETS 0
#if TWO_SETS && defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
#define MOST_SETS 2
#else
#define MOST_SETS 1
#endif

struct Flash {
    float* out;
    const float* queries;
    Cache cache;
    Step step;
    const float* sinks;
    // For each row the keys that it sees, ascending, and what is none; without, all of the reach.
    const u32* chosen;
    u32 chosen_width;
    u32 heads;
    u32 reach_kind;
    u32 reach_limit;
    float scale;
    float softcap;
};

// A cache's kernels are compiled when there is one: FLASH makes them. FORMAT is the cache's: 1 f16, 2 bf16, 3 bytes, which are computed with as bf16.

// The lower half is x.
template <int FORMAT>
__device__ __forceinline__ u32 pack(float x, float y) {
    u32 bits;
    if (FORMAT == 1) asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(bits) : "f"(x), "f"(y));
    else asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(bits) : "f"(x), "f"(y));
    return bits;
}

template <int FORMAT>
__device__ __forceinline__ float lower(u32 bits) { return FORMAT == 1 ? of_f16((u16)bits) : __uint_as_float(bits << 16); }

template <int FORMAT>
__device__ __forceinline__ float upper(u32 bits) { return FORMAT == 1 ? of_f16((u16)(bits >> 16)) : __uint_as_float(bits & 0xffff0000u); }

// What is left of x and y.
template <int FORMAT>
__device__ __forceinline__ void take(u32 bits, float& x, float& y) {
    x = __fsub_rn(x, lower<FORMAT>(bits));
    y = __fsub_rn(y, upper<FORMAT>(bits));
}

template <int FORMAT>
__device__ __forceinline__ void multiply(float (&sums)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    if (FORMAT == 1)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 shared_at(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

__device__ __forceinline__ void matrices4(u32 (&to)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
}

__device__ __forceinline__ void matrices2(u32 (&to)[2], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(from) : "memory");
}

__device__ __forceinline__ void transposed4(u32 (&to)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
}

// Where a lane's row of matrices begins in shared memory: addresses in it are numbers, to which constants are added for nothing.
__device__ __forceinline__ u32 row_at(const u16* rows, u32 row, u32 stride, u32 column) { return shared_at(rows + row * stride + column); }

// Copies 16 bytes, or makes them zero.
__device__ __forceinline__ void copy16(u16* to, const u8* from, bool is_there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_at(to)), "l"(from), "r"(is_there ? 16 : 0) : "memory");
}

__device__ __forceinline__ void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all copies but the last GROUPS groups of them.
template <int GROUPS>
__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory"); }

__device__ __forceinline__ float power_of_2(float x) {
    float value;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}

// What counts as much as x says counts beside what is as high as `top`.
__device__ __forceinline__ float weight_beside(float x, float top) { return x == top ? 1.0f : power_of_2(__fsub_rn(x, top)); }

// The hyperbolic tangent, in operations that are the same to the bit wherever this is.
__device__ __forceinline__ float tangent(float x) {
    float size = fabsf(x), square = __fmul_rn(x, x), power, inverse;
    float small = fmaf(fmaf(fmaf(0.0157396831f, square, -0.0523039624f), square, 0.133152977f), square, -0.333327681f);
    small = fmaf(__fmul_rn(small, square), x, x);
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(__fmul_rn(size, 2.0f * LOG2_E)));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(__fadd_rn(power, 1.0f)));
    return size < 0.55f ? small : copysignf(fmaf(-2.0f, inverse, 1.0f), x);
}

__device__ __forceinline__ float quad_sum(float value) {
    value = __fadd_rn(value, __shfl_xor_sync(FULL, value, 1));
    return __fadd_rn(value, __shfl_xor_sync(FULL, value, 2));
}

__device__ __forceinline__ float quad_highest(float value) {
    value = fmaxf(value, __shfl_xor_sync(FULL, value, 1));
    return fmaxf(value, __shfl_xor_sync(FULL, value, 2));
}

// Blocks of a cluster wait for each other, and read each other's shared memory.
__device__ __forceinline__ u32 cluster_height() {
#if __CUDA_ARCH__ >= 900
    u32 height;
    asm("mov.u32 %0, %%cluster_nctaid.y;" : "=r"(height));
    return height;
#else
    return 1;
#endif
}

__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ float2 read_other(const float2* own, u32 block) {
    float2 value = make_float2(0.0f, 0.0f);
#if __CUDA_ARCH__ >= 900
    u32 at;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_at(own)), "r"(block));
    asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(value.x), "=f"(value.y) : "r"(at) : "memory");
#endif
    return value;
}

// The keys that a row sees, or of those chosen for it, the first and the end: none where `end` is 0.
struct Seen {
    u32 first;
    u32 end;
};

__device__ __forceinline__ Seen seen_by(const Flash& flash, u32 row) {
    Seen seen;
    seen.end = flash.step.ends[row];
    if (flash.chosen) {
        seen.end = seen_among(flash.chosen + (u64)row * flash.chosen_width, flash.chosen_width, seen.end);
        seen.first = 0;
        return seen;
    }
    seen.first = first_seen(flash.step.indices[row], flash.reach_kind, flash.reach_limit);
    if (seen.first >= seen.end) seen.first = seen.end = 0;
    return seen;
}

__device__ __forceinline__ u32 page_of(const Flash& flash, const u32* table, u32 key) {
    u32 number = key / flash.cache.page_size;
    return number < flash.step.table_width ? table[number] : 0;
}

// The number of a row of a head in the cache, of keys as of values.
__device__ __forceinline__ u32 cache_place(const Flash& flash, u32 page, u32 key, u32 kv_head) {
    if (page >= flash.cache.pages) page = flash.cache.pages - 1;
    return (page * flash.cache.kv_heads + kv_head) * flash.cache.page_size + key % flash.cache.page_size;
}

// Stands for a key that no row sees.
#define NOWHERE 0xffffffffu

// Brings a split's rows to shared memory, by all of the block's THREADS; what no row sees is zero.
template <int DIM, int FORMAT, int THREADS>
__device__ __forceinline__ void bring(const Cache& cache, u16* to, const u8* base, const u32* places, float* scales) {
    constexpr int STRIDE = DIM + 8;
    if constexpr (FORMAT != 3) {
        constexpr int CHUNKS = DIM / 8;
        static_assert(SPLIT * CHUNKS % THREADS == 0, "every thread has as much to copy");
        // Where there are many rows, registers are few.
        constexpr int AT_ONCE = THREADS == 32 * ROWS_WARPS ? 4 : 16;
#pragma unroll AT_ONCE
        for (int turn = 0; turn < SPLIT * CHUNKS / THREADS; turn++) {
            u32 i = threadIdx.x + turn * THREADS, key = i / CHUNKS, chunk = i % CHUNKS, place = places[key];
            bool is_there = place != NOWHERE;
            copy16(to + key * STRIDE + chunk * 8, base + (u64)(is_there ? place : 0) * (DIM * 2) + chunk * 16, is_there);
        }
    } else {
        constexpr int CHUNKS = DIM / 16, TURNS = (SPLIT * CHUNKS + THREADS - 1) / THREADS;
        u64 block = (u64)cache.page_size * (DIM + 4);
        uint4 bytes[TURNS];
        float scale = 0.0f;
        // All wait for memory together.
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            u32 i = threadIdx.x + turn * THREADS, place = i < SPLIT * CHUNKS ? places[i / CHUNKS] : NOWHERE;
            bytes[turn] = make_uint4(0, 0, 0, 0);
            if (place != NOWHERE) bytes[turn] = *(const uint4*)(base + place / cache.page_size * block + place % cache.page_size * DIM + i % CHUNKS * 16);
        }
        u32 place = threadIdx.x < SPLIT ? places[threadIdx.x] : NOWHERE;
        if (place != NOWHERE) scale = *(const float*)(base + place / cache.page_size * block + (u64)cache.page_size * DIM + 4 * (place % cache.page_size));
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            u32 i = threadIdx.x + turn * THREADS;
            if (i >= SPLIT * CHUNKS) continue;
            u32 words[4] = {bytes[turn].x, bytes[turn].y, bytes[turn].z, bytes[turn].w};
            u32 numbers[8];
#pragma unroll
            for (int word = 0; word < 4; word++) {
                numbers[2 * word] = pack<2>((float)(signed char)(words[word]), (float)(signed char)(words[word] >> 8));
                numbers[2 * word + 1] = pack<2>((float)(signed char)(words[word] >> 16), (float)(signed char)(words[word] >> 24));
            }
            uint4* own = (uint4*)(to + i / CHUNKS * STRIDE + i % CHUNKS * 16);
            own[0] = make_uint4(numbers[0], numbers[1], numbers[2], numbers[3]);
            own[1] = make_uint4(numbers[4], numbers[5], numbers[6], numbers[7]);
        }
        if (threadIdx.x < SPLIT) scales[threadIdx.x] = scale;
    }
}

// Puts a query's parts, by a warp, into a row of each of the places in `parts`, the third except for f16; what is no query is zero. f16 has little
// range, so the query becomes as large as it can be by a power of two; returned is what makes it what it was.
template <int DIM, int FORMAT>
__device__ __forceinline__ float put_query(u16* const (&parts)[3], const float* query, u32 lane) {
    constexpr int TURNS = (DIM + 127) / 128;
    float4 own[TURNS];
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++) {
        u32 i = 4 * lane + 128 * turn;
        own[turn] = query && i < DIM ? *(const float4*)(query + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    float back = 1.0f;
    if (FORMAT == 1) {
        u32 largest = 0;
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            largest = max(max(largest, __float_as_uint(own[turn].x) & 0x7fffffffu), __float_as_uint(own[turn].y) & 0x7fffffffu);
            largest = max(max(largest, __float_as_uint(own[turn].z) & 0x7fffffffu), __float_as_uint(own[turn].w) & 0x7fffffffu);
        }
        u32 exponent = __reduce_max_sync(FULL, largest) >> 23;
        exponent = exponent < 14 ? 14 : exponent > 253 ? 253 : exponent;
        float factor = __uint_as_float((267 - exponent) << 23);
        back = __uint_as_float((exponent - 13) << 23);
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++) {
            own[turn].x *= factor;
            own[turn].y *= factor;
            own[turn].z *= factor;
            own[turn].w *= factor;
        }
    }
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++) {
        u32 i = 4 * lane + 128 * turn;
        if (i >= DIM) continue;
        float4 rest = own[turn];
#pragma unroll
        for (int part = 0; part < (FORMAT == 1 ? 2 : 3); part++) {
            u32 low = pack<FORMAT>(rest.x, rest.y), high = pack<FORMAT>(rest.z, rest.w);
            take<FORMAT>(low, rest.x, rest.y);
            take<FORMAT>(high, rest.z, rest.w);
            *(uint2*)(parts[part] + i) = make_uint2(low, high);
        }
    }
    return back;
}

// What a warp multiplies with at a time: 8 queries and the rests of these, or two sets of 8, and then the rests of these apart.
template <int SETS>
struct Parts {
    u32 own[SETS][4];
};

// The third parts.
template <int SETS>
struct Rests {
    u32 own[2 * SETS];
};

template <int FORMAT, int SETS>
__device__ __forceinline__ void multiply_parts(float (&sums)[SETS][4], const Parts<SETS>& parts, u32 b0, u32 b1) {
#pragma unroll
    for (int set = 0; set < SETS; set++) multiply<FORMAT>(sums[set], parts.own[set][0], parts.own[set][1], parts.own[set][2], parts.own[set][3], b0, b1);
}

template <int FORMAT>
__device__ __forceinline__ void multiply_rests(float (&sums)[1][4], const Rests<1>& rests, u32 b0, u32 b1) { multiply<FORMAT>(sums[0], rests.own[0], 0, rests.own[1], 0, b0, b1); }

template <int FORMAT>
__device__ __forceinline__ void multiply_rests(float (&sums)[2][4], const Rests<2>& rests, u32 b0, u32 b1) {
    multiply<FORMAT>(sums[0], rests.own[0], rests.own[1], rests.own[2], rests.own[3], b0, b1);
}

// What has been summed up of a set, in the first or the second of a lane's columns.
__device__ __forceinline__ float sum_of(const float (&sums)[1][4], int, int column) { return __fadd_rn(sums[0][column], sums[0][2 + column]); }
__device__ __forceinline__ float sum_of(const float (&sums)[2][4], int set, int column) { return __fadd_rn(sums[0][2 * set + column], sums[1][2 * set + column]); }

// Where a lane finds its part of 16 rows that are multiplied with, of 8 such, of keys, and of values.
template <int DIM>
__device__ __forceinline__ u32 sixteen_at(const u16* rows, u32 lane) { return row_at(rows, lane % 16, DIM + 8, lane / 16 * 8); }

template <int DIM>
__device__ __forceinline__ u32 eight_at(const u16* rows, u32 lane) { return row_at(rows, lane % 8, DIM + 8, lane / 8 % 2 * 8); }

template <int DIM>
__device__ __forceinline__ u32 key_at(const u16* rows, u32 lane) { return row_at(rows, lane / 16 * 8 + lane % 8, DIM + 8, lane / 8 % 2 * 8); }

template <int DIM>
__device__ __forceinline__ u32 value_at(const u16* rows, u32 lane) { return row_at(rows, lane, DIM + 8, 0); }

// Products of sets of 8 queries and some pieces of a split. A lane has two keys of every eight: query `lane / 4`, keys `8 j + 2 (lane % 4)`
// and the next. `parts(step)` and `rests(step)` give the queries, 16 columns at a time.
template <int DIM, int FORMAT, int COUNT, int SETS, typename GiveParts, typename GiveRests>
__device__ __forceinline__ void products_of(float (&products)[SETS][2 * COUNT][2], u32 keys_at, GiveParts parts, GiveRests rests) {
    constexpr int STRIDE = DIM + 8;
    float sums[2 * COUNT][SETS][4];
#pragma unroll
    for (int j = 0; j < 2 * COUNT; j++) {
#pragma unroll
        for (int set = 0; set < SETS; set++) sums[j][set][0] = sums[j][set][1] = sums[j][set][2] = sums[j][set][3] = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) {
        Parts<SETS> own = parts(step);
        u32 loaded[COUNT][4];
#pragma unroll
        for (int i = 0; i < COUNT; i++) matrices4(loaded[i], keys_at + i * PIECE * STRIDE * 2 + step * 32);
#pragma unroll
        for (int j = 0; j < 2 * COUNT; j++) multiply_parts<FORMAT>(sums[j], own, loaded[j / 2][j % 2 * 2], loaded[j / 2][j % 2 * 2 + 1]);
        if constexpr (FORMAT != 1) {
            Rests<SETS> rest = rests(step);
#pragma unroll
            for (int j = 0; j < 2 * COUNT; j++) multiply_rests<FORMAT>(sums[j], rest, loaded[j / 2][j % 2 * 2], loaded[j / 2][j % 2 * 2 + 1]);
        }
    }
#pragma unroll
    for (int j = 0; j < 2 * COUNT; j++) {
#pragma unroll
        for (int set = 0; set < SETS; set++) {
            products[set][j][0] = sum_of(sums[j], set, 0);
            products[set][j][1] = sum_of(sums[j], set, 1);
        }
    }
}

// Makes scores, in powers of two, of products with pieces that begin at `base`; `sees_all` says that no row of the warp lacks a key of them.
// Returns the highest of the lane's, whereby NaNs lose.
template <int FORMAT, int TILES>
__device__ __forceinline__ float scores_of(
    float (&scores)[TILES][2], const Flash& flash, float back, const float* scales, Seen seen, bool sees_all, u32 base, u32 lane) {
    if (FORMAT != 2) {
#pragma unroll
        for (int j = 0; j < TILES; j++) {
#pragma unroll
            for (int i = 0; i < 2; i++) scores[j][i] = __fmul_rn(scores[j][i], FORMAT == 1 ? back : scales[8 * j + 2 * (lane % 4) + i]);
        }
    }
    if (flash.softcap > 0.0f) {
        float factor = __fdiv_rn(flash.scale, flash.softcap), cap = __fmul_rn(flash.softcap, LOG2_E);
#pragma unroll
        for (int j = 0; j < TILES; j++) {
#pragma unroll
            for (int i = 0; i < 2; i++) scores[j][i] = __fmul_rn(tangent(__fmul_rn(scores[j][i], factor)), cap);
        }
    } else {
        float factor = __fmul_rn(flash.scale, LOG2_E);
#pragma unroll
        for (int j = 0; j < TILES; j++) {
#pragma unroll
            for (int i = 0; i < 2; i++) scores[j][i] = __fmul_rn(scores[j][i], factor);
        }
    }
    if (!sees_all) {
#pragma unroll
        for (int j = 0; j < TILES; j++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                u32 key = base + 8 * j + 2 * (lane % 4) + i;
                if (key < seen.first || key >= seen.end) scores[j][i] = -INFINITE;
            }
        }
    }
    float top = -INFINITE;
#pragma unroll
    for (int j = 0; j < TILES; j++) top = fmaxf(top, fmaxf(scores[j][0], scores[j][1]));
    return top;
}

// Makes shares of a piece's scores: bits of a share and of its rest, for two keys each. Returns the sum of the lane's.
template <int FORMAT>
__device__ __forceinline__ float shares_of(u32 (*shares)[2], const float (*scores)[2], float top, const float* scales, u32 lane) {
    float sum = 0.0f;
    // Where nothing counts, all scores are minus infinity, or no numbers.
    if (top == -INFINITE) top = 0.0f;
#pragma unroll
    for (int j = 0; j < PIECE / 8; j++) {
        float x = power_of_2(__fsub_rn(scores[j][0], top)), y = power_of_2(__fsub_rn(scores[j][1], top));
        if (FORMAT == 3) {
            sum = __fadd_rn(sum, __fadd_rn(x, y));
            // The scale of what is not seen may be anything.
            if (scores[j][0] != -INFINITE) x = __fmul_rn(x, scales[8 * j + 2 * (lane % 4)]);
            if (scores[j][1] != -INFINITE) y = __fmul_rn(y, scales[8 * j + 2 * (lane % 4) + 1]);
        }
        shares[j][0] = pack<FORMAT>(x, y);
        float low = lower<FORMAT>(shares[j][0]), high = upper<FORMAT>(shares[j][0]);
        shares[j][1] = pack<FORMAT>(__fsub_rn(x, low), __fsub_rn(y, high));
        if (FORMAT != 3) {
            // The sum is that of what values are multiplied by.
            low = __fadd_rn(low, lower<FORMAT>(shares[j][1]));
            high = __fadd_rn(high, upper<FORMAT>(shares[j][1]));
            sum = __fadd_rn(sum, __fadd_rn(low, high));
        }
    }
    return sum;
}

// What has been found of a row.
struct Found {
    float top;
    float sum;
};

// Merges what a split has: returns what its values count, and what those before count now is `before`.
__device__ __forceinline__ float merge(Found& found, float top, float sum, float& before) {
    float higher = fmaxf(found.top, top);
    before = weight_beside(found.top, higher);
    float own = weight_beside(top, higher);
    found.top = higher;
    found.sum = fmaf(found.sum, before, __fmul_rn(sum, own));
    return own;
}

__device__ __forceinline__ float merged(float before, float factor, float own, float weight) { return fmaf(before, factor, __fmul_rn(own, weight)); }

// A sink counts last: returns what the values count then.
__device__ __forceinline__ float end_with(Found& found, const float* sinks, u32 head) {
    if (!sinks) return 1.0f;
    float sink = __fmul_rn(sinks[head], LOG2_E), before;
    merge(found, sink, sink == -INFINITE ? 0.0f : 1.0f, before);
    return before;
}

// There is no negative zero, whatever nothing was added to.
__device__ __forceinline__ float result_of(float mixed, float factor, Found found) { return __fadd_rn(__fdiv_rn(__fmul_rn(mixed, factor), found.sum), 0.0f); }

// Merges, by a warp, a row's splits, of which other blocks have written the mixed values and `{top, sum}`; a lane has WIDTH columns.
template <int WIDTH, int UNROLLED>
__device__ __forceinline__ void merge_splits(
    float* out, const float* mixed, const float2* states, u32 count, u32 dim, u32 column, const float* sinks, u32 head, u32 lane) {
    Found found = {-INFINITE, 0.0f};
    float all[WIDTH];
#pragma unroll
    for (int i = 0; i < WIDTH; i++) all[i] = 0.0f;
    bool is_own = column < dim;
    for (u32 base = 0; base < count; base += 32) {
        u32 left = min(32, count - base);
        float2 state = lane < left ? __ldcg(states + base + lane) : make_float2(-INFINITE, 0.0f);
        float loaded[UNROLLED][WIDTH];
        auto load = [&](u32 from) {
#pragma unroll
            for (int i = 0; i < UNROLLED; i++) {
                if (from + i >= left || !is_own) continue;
                const float* at = mixed + (u64)(base + from + i) * dim + column;
                if constexpr (WIDTH == 2) {
                    float2 two = __ldcg((const float2*)at);
                    loaded[i][0] = two.x, loaded[i][1] = two.y;
                } else {
                    loaded[i][0] = __ldcg(at);
                }
            }
        };
        load(0);
        // The highest so far, with each split.
        float highest_so_far = state.x;
        for (u32 step = 1; step < 32; step *= 2) {
            float other = __shfl_up_sync(FULL, highest_so_far, step);
            if (lane >= step) highest_so_far = fmaxf(highest_so_far, other);
        }
        highest_so_far = fmaxf(highest_so_far, found.top);
        float before = __shfl_up_sync(FULL, highest_so_far, 1);
        if (lane == 0) before = found.top;
        before = weight_beside(before, highest_so_far);
        float own = weight_beside(state.x, highest_so_far), sum = __fmul_rn(state.y, own);
        for (u32 from = 0; from < left; from += UNROLLED) {
            if (from > 0) load(from);
#pragma unroll
            for (int i = 0; i < UNROLLED; i++) {
                if (from + i >= left) continue;
                float factor = __shfl_sync(FULL, before, from + i), weight = __shfl_sync(FULL, own, from + i);
                found.sum = fmaf(found.sum, factor, __shfl_sync(FULL, sum, from + i));
                if (!is_own) continue;
#pragma unroll
                for (int k = 0; k < WIDTH; k++) all[k] = merged(all[k], factor, loaded[i][k], weight);
            }
        }
        found.top = __shfl_sync(FULL, highest_so_far, 31);
    }
    float factor = end_with(found, sinks, head);
    if (!is_own) return;
#pragma unroll
    for (int i = 0; i < WIDTH; i++) out[column + i] = result_of(all[i], factor, found);
}

// Up to eight heads of one row that have their keys in common: a block takes a split, and the next after as many as there are blocks.
// Rows are those listed in `rows`, or all, from the one with the number `first_row` on. `most` is how many splits `mixed` and `states` have for each head of a row. Where there are `arrivals`, all of which are zero, whoever is
// the last merges; where there are none, `flash_merge` does.
template <int DIM, int FORMAT>
__device__ __forceinline__ void split_attention(const Flash& flash, const u32* rows, u32 first_row, float* mixed, float2* states, u32 most, u32* arrivals) {
    constexpr int STRIDE = DIM + 8, SHARE_STRIDE = SPLIT + 8, PARTS = FORMAT == 1 ? 2 : 3, TILES = DIM / 8;
    // Wide values take the place of keys.
    constexpr bool IN_TURN = DIM > 128;
    extern __shared__ __align__(16) u8 flash_memory[];
    u16* keys = (u16*)flash_memory;
    u16* values = IN_TURN ? keys : keys + SPLIT * STRIDE;
    u16* queries = values + SPLIT * STRIDE;
    u16* shares = queries + 8 * PARTS * STRIDE;
    __shared__ u32 places[2][SPLIT];
    __shared__ float tops[SPLIT_WARPS][8], sums[SPLIT_WARPS][32], backs[8], key_scales[SPLIT], value_scales[SPLIT];
    __shared__ bool is_last;
    __shared__ float2 cluster_states[8];
    static_assert(SPLIT_WARPS == PIECES, "a warp has a piece of the keys");
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // Some threads have a key to look up.
    u32 own_key = threadIdx.x % SPLIT;
    bool looks_up = threadIdx.x < SPLIT;
    const Cache& cache = flash.cache;
    u32 of_kv_head = flash.heads / cache.kv_heads, eights = (of_kv_head + 7) / 8;
    u32 kv_head = blockIdx.x / eights % cache.kv_heads, number = blockIdx.x / eights / cache.kv_heads;
    begin();
    u32 row = rows ? rows[first_row + number] : first_row + number;
    u32 head = kv_head * of_kv_head + blockIdx.x % eights * 8;
    u32 heads = min(8, (kv_head + 1) * of_kv_head - head);
    const u32* table = flash.step.table + (u64)(flash.step.row_sequences ? flash.step.row_sequences[row] : row) * flash.step.table_width;
    // Nothing waits for anything else: a block's keys are known by its number where rows see everything.
    const u32* chosen = flash.chosen ? flash.chosen + (u64)row * flash.chosen_width : 0;
    auto token_of = [&](u32 key) { return !chosen ? key : key < flash.chosen_width ? chosen[key] : NOWHERE; };
    u32 token = token_of(blockIdx.y * SPLIT + own_key), page = flash.reach_kind == 0 ? page_of(flash, table, token) : 0;
    Seen seen = seen_by(flash, row);
    float* out = flash.out + ((u64)row * flash.heads + head) * DIM;
    if (seen.end == 0) {
        if (blockIdx.y == 0) {
            for (u32 i = threadIdx.x; i < heads * DIM; i += blockDim.x) out[i] = 0.0f;
        }
        return;
    }
    u32 first_split = seen.first / SPLIT, count = (seen.end - 1) / SPLIT - first_split + 1;
    if (blockIdx.y >= count) return;
    u64 state_of = ((u64)number * flash.heads + head) * most;
    // All splits of the row may be in one cluster.
    bool in_cluster = count > 1 && count <= gridDim.y && cluster_height() == gridDim.y;
    auto place_of = [&](u32 page, u32 token, u32 key) { return key >= seen.first && key < seen.end ? cache_place(flash, page, token, kv_head) : NOWHERE; };
    {
        u32 key = (first_split + blockIdx.y) * SPLIT + own_key;
        if (flash.reach_kind != 0) page = page_of(flash, table, token = key);
        if (looks_up) places[0][own_key] = place_of(page, token, key);
        __syncthreads();
        bring<DIM, FORMAT, 32 * SPLIT_WARPS>(cache, keys, cache.keys, places[0], key_scales);
        copies_end();
        if (!IN_TURN) {
            bring<DIM, FORMAT, 32 * SPLIT_WARPS>(cache, values, cache.values, places[0], value_scales);
            copies_end();
        }
        for (u32 i = warp; i < 8; i += SPLIT_WARPS) {
            u16* const parts[3] = {queries + i * STRIDE, queries + (8 + i) * STRIDE, queries + (16 + i) * STRIDE};
            float back = put_query<DIM, FORMAT>(parts, i < heads ? flash.queries + ((u64)row * flash.heads + head + i) * DIM : 0, lane);
            if (lane == 0) backs[i] = back;
        }
    }
    u32 own_queries = sixteen_at<DIM>(queries, lane), own_rests = eight_at<DIM>(queries + 16 * STRIDE, lane), own_keys = key_at<DIM>(keys + warp * PIECE * STRIDE, lane);
    u32 own_values = value_at<DIM>(values, lane) + warp * 16, shares_at = row_at(shares, lane % 16, SHARE_STRIDE, lane / 16 * 8);
    u32 turn = 0;
    for (u32 split = blockIdx.y; split < count; split += gridDim.y, turn ^= 1) {
        u32 base = (first_split + split) * SPLIT, next_key = base + gridDim.y * SPLIT + own_key;
        bool is_next = split + gridDim.y < count;
        if (is_next) page = page_of(flash, table, token = token_of(next_key));
        await_copies<IN_TURN ? 0 : 1>();
        __syncthreads();
        float products[1][PIECE / 8][2];
        auto parts = [&](u32 step) {
            Parts<1> found;
            matrices4(found.own[0], own_queries + step * 32);
            return found;
        };
        auto rests = [&](u32 step) {
            Rests<1> found;
            matrices2(found.own, own_rests + step * 32);
            return found;
        };
        products_of<DIM, FORMAT, 1, 1>(products, own_keys, parts, rests);
        float(&scores)[PIECE / 8][2] = products[0];
        float top = quad_highest(scores_of<FORMAT>(
            scores, flash, backs[lane / 4], key_scales + warp * PIECE, seen, seen.first <= base && base + SPLIT <= seen.end, base + warp * PIECE, lane));
        if (lane % 4 == 0) tops[warp][lane / 4] = top;
        if (is_next && looks_up) places[turn ^ 1][own_key] = place_of(page, token, next_key);
        __syncthreads();
        // Keys are done with.
        if (IN_TURN) bring<DIM, FORMAT, 32 * SPLIT_WARPS>(cache, values, cache.values, places[turn], value_scales);
        else if (is_next) bring<DIM, FORMAT, 32 * SPLIT_WARPS>(cache, keys, cache.keys, places[turn ^ 1], key_scales);
        copies_end();
        // Shares have the values' scales in them.
        if (IN_TURN && FORMAT == 3) __syncthreads();
        top = tops[0][lane / 4];
#pragma unroll
        for (int i = 1; i < SPLIT_WARPS; i++) top = fmaxf(top, tops[i][lane / 4]);
        u32 own_shares[PIECE / 8][2];
        sums[warp][lane] = shares_of<FORMAT>(own_shares, scores, top, value_scales + warp * PIECE, lane);
#pragma unroll
        for (int j = 0; j < PIECE / 8; j++) {
            u16* to = shares + lane / 4 * SHARE_STRIDE + warp * PIECE + 8 * j + 2 * (lane % 4);
            *(u32*)to = own_shares[j][0];
            *(u32*)(to + 8 * SHARE_STRIDE) = own_shares[j][1];
        }
        await_copies<IN_TURN ? 0 : 1>();
        __syncthreads();
        float sum = sums[0][lane];
#pragma unroll
        for (int i = 1; i < SPLIT_WARPS; i++) sum = __fadd_rn(sum, sums[i][lane]);
        sum = quad_sum(sum);
        // A warp has every eighth eight of columns.
        constexpr int OWN = (TILES + SPLIT_WARPS - 1) / SPLIT_WARPS;
        float mixes[OWN][4];
#pragma unroll
        for (int i = 0; i < OWN; i++) mixes[i][0] = mixes[i][1] = mixes[i][2] = mixes[i][3] = 0.0f;
#pragma unroll
        for (int step = 0; step < SPLIT / 32; step++) {
            u32 first[4], second[4];
            u32 loaded[OWN][4];
            matrices4(first, shares_at + step * 64);
            matrices4(second, shares_at + step * 64 + 32);
            auto is_own = [&](int i) { return TILES % SPLIT_WARPS == 0 || warp + SPLIT_WARPS * i < TILES; };
#pragma unroll
            for (int i = 0; i < OWN; i++)
                if (is_own(i)) transposed4(loaded[i], own_values + step * 64 * STRIDE + SPLIT_WARPS * i * 16);
#pragma unroll
            for (int i = 0; i < OWN; i++)
                if (is_own(i)) multiply<FORMAT>(mixes[i], first[0], first[1], first[2], first[3], loaded[i][0], loaded[i][1]);
#pragma unroll
            for (int i = 0; i < OWN; i++)
                if (is_own(i)) multiply<FORMAT>(mixes[i], second[0], second[1], second[2], second[3], loaded[i][2], loaded[i][3]);
        }
        if (lane / 4 < heads) {
            Found found = {-INFINITE, 0.0f};
            float before, own = merge(found, top, sum, before);
            float factor = count == 1 ? end_with(found, flash.sinks, head + lane / 4) : 1.0f;
            u64 state = state_of + lane / 4 * most + split;
#pragma unroll
            for (int i = 0; i < OWN; i++) {
                u32 tile = warp + SPLIT_WARPS * i, column = tile * 8 + 2 * (lane % 4);
                if (TILES % SPLIT_WARPS && tile >= TILES) continue;
                float x = __fadd_rn(mixes[i][0], mixes[i][2]), y = __fadd_rn(mixes[i][1], mixes[i][3]);
                if (count == 1) {
                    x = result_of(merged(0.0f, before, x, own), factor, found);
                    y = result_of(merged(0.0f, before, y, own), factor, found);
                    *(float2*)(out + lane / 4 * DIM + column) = make_float2(x, y);
                } else if (in_cluster) {
                    // Nobody needs the queries any more.
                    *(float2*)((float*)queries + lane / 4 * DIM + column) = make_float2(x, y);
                } else {
                    __stcg((float2*)(mixed + state * DIM + column), make_float2(x, y));
                }
            }
            if (count > 1 && warp == 0 && lane % 4 == 0) {
                if (in_cluster) cluster_states[lane / 4] = make_float2(top, sum);
                else __stcg(states + state, make_float2(top, sum));
            }
        }
        if (!is_next) break;
        __syncthreads();
        // Values are done with.
        if (IN_TURN) bring<DIM, FORMAT, 32 * SPLIT_WARPS>(cache, keys, cache.keys, places[turn ^ 1], key_scales);
        else bring<DIM, FORMAT, 32 * SPLIT_WARPS>(cache, values, cache.values, places[turn ^ 1], value_scales);
        copies_end();
    }
    if (in_cluster) {
        cluster_sync();
        for (u32 i = threadIdx.x; blockIdx.y == 0 && i < heads * (DIM / 2); i += 32 * SPLIT_WARPS) {
            u32 own_head = i / (DIM / 2);
            float2 others[8], other_states[8];
#pragma unroll
            for (u32 block = 0; block < 8; block++) {
                if (block >= count) continue;
                other_states[block] = read_other(cluster_states + own_head, block);
                others[block] = read_other((const float2*)queries + i, block);
            }
            Found found = {-INFINITE, 0.0f};
            float x = 0.0f, y = 0.0f;
#pragma unroll
            for (u32 block = 0; block < 8; block++) {
                if (block >= count) continue;
                float before, own = merge(found, other_states[block].x, other_states[block].y, before);
                x = merged(x, before, others[block].x, own);
                y = merged(y, before, others[block].y, own);
            }
            float factor = end_with(found, flash.sinks, head + own_head);
            *(float2*)(out + 2 * i) = make_float2(result_of(x, factor, found), result_of(y, factor, found));
        }
        // Until then the others are there.
        cluster_sync();
        return;
    }
    if (count == 1 || !arrivals) return;
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 blocks = min(gridDim.y, count), before;
        // What the block has written is there before it arrives, and what the others have when it is the last.
        asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(arrivals + blockIdx.x) : "memory");
        is_last = before == blocks - 1;
        if (is_last) arrivals[blockIdx.x] = 0;
    }
    __syncthreads();
    if (!is_last) return;
    constexpr u32 SHARES = (DIM + 63) / 64;
    for (u32 i = warp; i < heads * SHARES; i += SPLIT_WARPS) {
        u64 state = state_of + i / SHARES * most;
        u32 column = i % SHARES * 64 + 2 * lane;
        merge_splits<2, 16>(out + i / SHARES * DIM, mixed + state * DIM, states + state, count, DIM, column, flash.sinks, head + i / SHARES, lane);
    }
}

// A warp merges 32 columns of a head of a row.
extern "C" __global__ void flash_merge(Flash flash, const u32* rows, u32 first_row, u32 row_count, const float* mixed, const float2* states, u32 most) {
    begin();
    u32 warp = place() / 32, lane = threadIdx.x % 32, dim = flash.cache.key_dim, pieces = (dim + 31) / 32;
    u32 head = warp / pieces % flash.heads, number = warp / pieces / flash.heads;
    if (number >= row_count) return;
    u32 row = rows ? rows[first_row + number] : first_row + number;
    Seen seen = seen_by(flash, row);
    if (seen.end == 0) return;
    u32 count = (seen.end - 1) / SPLIT - seen.first / SPLIT + 1;
    // It has its result.
    if (count == 1) return;
    u64 state = ((u64)number * flash.heads + head) * most;
    merge_splits<1, 32>(
        flash.out + ((u64)row * flash.heads + head) * dim, mixed + state * dim, states + state, count, dim, warp % pieces * 32 + lane, flash.sinks, head, lane);
}

// Mixes a split's values, some of which are infinite or no numbers: for one query after the other, without those that it does not see.
// Hardly ever called, so it is apart from what must be fast.
template <int DIM, int FORMAT>
__device__ __noinline__ void odd_values(float* mixed, const u32* shares, u32 values_at, Seen seen, u32 base) {
    u32 lane = threadIdx.x % 32;
#pragma unroll 1
    for (u32 query = 0; query < 8; query++) {
        u32 first = __shfl_sync(FULL, seen.first, 4 * query), end = __shfl_sync(FULL, seen.end, 4 * query);
#pragma unroll 1
        for (u32 tile = 0; tile < DIM / 8; tile++) {
            float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
            for (u32 pair = 0; pair < PIECES / 2; pair++) {
                u32 loaded[4];
                transposed4(loaded, values_at + pair * 2 * PIECE * (DIM + 8) * 2 + tile * 16);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    u32 key = base + pair * 2 * PIECE + 8 * i + 2 * (lane % 4);
                    if (key < first || key >= end) loaded[i] &= 0xffff0000u;
                    if (key + 1 < first || key + 1 >= end) loaded[i] &= 0xffffu;
                }
                const u32* own = shares + 8 * pair;
                multiply<FORMAT>(sums, own[0], own[1], own[2], own[3], loaded[0], loaded[1]);
                multiply<FORMAT>(sums, own[4], own[5], own[6], own[7], loaded[2], loaded[3]);
            }
            if (lane / 4 != query) continue;
            mixed[2 * tile] = __fadd_rn(sums[0], sums[2]);
            mixed[2 * tile + 1] = __fadd_rn(sums[1], sums[3]);
        }
    }
}

// Many rows of one sequence: those of a tile of rows, `{first row, rows}`, each with all its queries of one head of keys, a set or two of
// eight to a warp.
template <int DIM, int FORMAT, int SETS>
__device__ __forceinline__ void rows_attention(const Flash& flash, const u32* row_tiles, u32 tile_rows) {
    constexpr int STRIDE = DIM + 8, TILES = DIM / 8, QUERIES = 8 * SETS * ROWS_WARPS;
    constexpr bool IN_TURN = DIM > 128;
    extern __shared__ __align__(16) u8 flash_memory[];
    u16* keys = (u16*)flash_memory;
    u16* values = IN_TURN ? keys : keys + SPLIT * STRIDE;
    static_assert(32 * ROWS_WARPS == SPLIT, "every thread looks up a key");
    __shared__ u32 places[2][SPLIT];
    __shared__ u32 bounds[4][ROWS_WARPS];
    __shared__ float key_scales[SPLIT], value_scales[SPLIT];
    begin();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Cache& cache = flash.cache;
    u32 of_kv_head = flash.heads / cache.kv_heads, pieces = (tile_rows * of_kv_head + QUERIES - 1) / QUERIES;
    u32 kv_head = blockIdx.x / pieces, first_row = row_tiles[2 * blockIdx.y], query_count = row_tiles[2 * blockIdx.y + 1] * of_kv_head;
    u32 first_query = blockIdx.x % pieces * QUERIES;
    if (first_query >= query_count) return;
    const u32* table = flash.step.table + (u64)(flash.step.row_sequences ? flash.step.row_sequences[first_row] : first_row) * flash.step.table_width;
    first_query += warp * 8 * SETS;

    // One set of queries stays in registers. Two sets stay in shared memory, except for their third parts. What goes to registers goes through
    // the place of keys.
    constexpr int STEPS = DIM / 16;
    u16* own_rows = SETS == 1 ? keys + warp * 24 * STRIDE : values + (IN_TURN ? 0 : SPLIT * STRIDE) + warp * 32 * STRIDE;
    u16* rest_rows = SETS == 1 ? own_rows + 16 * STRIDE : keys + warp * 16 * STRIDE;
    static_assert((SETS == 1 ? 24 : 16) * ROWS_WARPS <= SPLIT, "all have room");
    static_assert(SETS == 1 || !IN_TURN, "wide heads come one set at a time");
    float back[SETS];
    for (u32 i = 0; i < 8 * SETS; i++) {
        u32 query = first_query + i;
        const float* from = flash.queries + ((u64)(first_row + query / of_kv_head) * flash.heads + kv_head * of_kv_head + query % of_kv_head) * DIM;
        u16* const parts[3] = {own_rows + i * STRIDE, own_rows + (8 * SETS + i) * STRIDE, rest_rows + i * STRIDE};
        float own_back = put_query<DIM, FORMAT>(parts, query < query_count ? from : 0, lane);
#pragma unroll
        for (int set = 0; set < SETS; set++) {
            if (8 * set + lane / 4 == i) back[set] = own_back;
        }
    }
    __syncwarp();
    u32 own_queries = sixteen_at<DIM>(own_rows, lane);
    Parts<1> kept_parts[SETS == 1 ? STEPS : 1];
    Rests<SETS> kept_rests[STEPS] = {};
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        if constexpr (SETS == 1) matrices4(kept_parts[step].own[0], own_queries + step * 32);
        if constexpr (FORMAT != 1 && SETS == 1) matrices2(kept_rests[step].own, eight_at<DIM>(rest_rows, lane) + step * 32);
        if constexpr (FORMAT != 1 && SETS == 2) matrices4(kept_rests[step].own, sixteen_at<DIM>(rest_rows, lane) + step * 32);
    }
    auto parts = [&](u32 step) {
        if constexpr (SETS == 1) {
            return kept_parts[step];
        } else {
            Parts<2> found;
            matrices4(found.own[0], own_queries + step * 32);
            matrices4(found.own[1], own_queries + 16 * STRIDE * 2 + step * 32);
            return found;
        }
    };
    auto rests = [&](u32 step) { return kept_rests[step]; };
    __syncthreads();

    Seen seen[SETS];
    // What some row sees, and what all rows see.
    Seen some = {NOWHERE, 0}, every = {0, NOWHERE};
#pragma unroll
    for (int set = 0; set < SETS; set++) {
        u32 query = first_query + 8 * set + lane / 4;
        seen[set] = {0, 0};
        if (query >= query_count) continue;
        seen[set] = seen_by(flash, first_row + query / of_kv_head);
        if (seen[set].end > 0) some = {min(some.first, seen[set].first), max(some.end, seen[set].end)};
        every = {max(every.first, seen[set].first), min(every.end, seen[set].end)};
    }
    Seen own_warp = {__reduce_min_sync(FULL, some.first), __reduce_max_sync(FULL, some.end)};
    every = {__reduce_max_sync(FULL, every.first), __reduce_min_sync(FULL, every.end)};
    if (lane == 0) {
        bounds[0][warp] = own_warp.first;
        bounds[1][warp] = own_warp.end;
        bounds[2][warp] = every.first;
        bounds[3][warp] = every.end;
    }
    __syncthreads();
    for (u32 i = 0; i < ROWS_WARPS; i++) {
        some = {min(some.first, bounds[0][i]), max(some.end, bounds[1][i])};
        every = {max(every.first, bounds[2][i]), min(every.end, bounds[3][i])};
    }

    Found found[SETS];
    float mixed[TILES][SETS][2];
#pragma unroll
    for (int set = 0; set < SETS; set++) {
        found[set] = {-INFINITE, 0.0f};
#pragma unroll
        for (int i = 0; i < TILES; i++) mixed[i][set][0] = mixed[i][set][1] = 0.0f;
    }
    if (some.end > 0) {
        u32 own_keys = key_at<DIM>(keys, lane), own_values = value_at<DIM>(values, lane);
        u32 first_split = some.first / SPLIT, splits = (some.end - 1) / SPLIT + 1;
        auto place_of = [&](u32 split) {
            u32 key = split * SPLIT + threadIdx.x;
            return key >= some.first && key < some.end ? cache_place(flash, page_of(flash, table, key), key, kv_head) : NOWHERE;
        };
        places[first_split % 2][threadIdx.x] = place_of(first_split);
        __syncthreads();
        bring<DIM, FORMAT, 32 * ROWS_WARPS>(cache, keys, cache.keys, places[first_split % 2], key_scales);
        copies_end();
        if (!IN_TURN) {
            bring<DIM, FORMAT, 32 * ROWS_WARPS>(cache, values, cache.values, places[first_split % 2], value_scales);
            copies_end();
        }
        for (u32 split = first_split; split < splits; split++) {
            u32 base = split * SPLIT;
            bool is_next = split + 1 < splits, is_seen = own_warp.first < base + SPLIT && own_warp.end > base;
            u32 next = is_next ? place_of(split + 1) : NOWHERE;
            await_copies<IN_TURN ? 0 : 1>();
            __syncthreads();
            constexpr int TOGETHER = 2;
            float scores[SETS][2 * PIECES][2], top[SETS];
#pragma unroll
            for (int set = 0; set < SETS; set++) top[set] = -INFINITE;
            if (is_seen) {
                bool sees_all = true;
#pragma unroll
                for (int set = 0; set < SETS; set++) sees_all = sees_all && seen[set].first <= base && base + SPLIT <= seen[set].end;
                sees_all = __all_sync(FULL, sees_all);
#pragma unroll
                for (int i = 0; i < PIECES; i += TOGETHER) {
                    float products[SETS][2 * TOGETHER][2];
                    products_of<DIM, FORMAT, TOGETHER, SETS>(products, own_keys + i * PIECE * STRIDE * 2, parts, rests);
#pragma unroll
                    for (int set = 0; set < SETS; set++) {
                        float higher = scores_of<FORMAT>(products[set], flash, back[set], key_scales + i * PIECE, seen[set], sees_all, base + i * PIECE, lane);
                        top[set] = fmaxf(top[set], higher);
#pragma unroll
                        for (int j = 0; j < 2 * TOGETHER; j++) {
                            scores[set][2 * i + j][0] = products[set][j][0];
                            scores[set][2 * i + j][1] = products[set][j][1];
                        }
                    }
                }
#pragma unroll
                for (int set = 0; set < SETS; set++) top[set] = quad_highest(top[set]);
            }
            places[(split + 1) % 2][threadIdx.x] = next;
            __syncthreads();
            // Keys are done with.
            if (IN_TURN) bring<DIM, FORMAT, 32 * ROWS_WARPS>(cache, values, cache.values, places[split % 2], value_scales);
            else if (is_next) bring<DIM, FORMAT, 32 * ROWS_WARPS>(cache, keys, cache.keys, places[(split + 1) % 2], key_scales);
            copies_end();
            if (IN_TURN && FORMAT == 3) __syncthreads();
            u32 shares[SETS][2 * PIECES][2];
            float sum[SETS];
            if (is_seen) {
#pragma unroll
                for (int set = 0; set < SETS; set++) {
#pragma unroll
                    for (int i = 0; i < PIECES; i++) {
                        float own = shares_of<FORMAT>(shares[set] + 2 * i, scores[set] + 2 * i, top[set], value_scales + i * PIECE, lane);
                        sum[set] = i == 0 ? own : __fadd_rn(sum[set], own);
                    }
                    sum[set] = quad_sum(sum[set]);
                }
            }
            await_copies<IN_TURN ? 0 : 1>();
            // Where a row does not see what another one does, nothing times that must be nothing, whatever it is.
            bool is_mixed = every.first > max(base, some.first) || every.end < min(base + SPLIT, some.end), is_odd = false;
            if (FORMAT != 3 && is_mixed) {
                __syncthreads();
                for (u32 i = threadIdx.x; i < SPLIT * (DIM / 2); i += blockDim.x) {
                    u32 two = *(const u32*)(values + i / (DIM / 2) * STRIDE + i % (DIM / 2) * 2), infinite = FORMAT == 1 ? 0x7c00 : 0x7f80;
                    is_odd |= (two & infinite) == infinite || (two >> 16 & infinite) == infinite;
                }
                is_odd = __syncthreads_or(is_odd);
            } else {
                __syncthreads();
            }
            if (is_seen) {
                float before[SETS], own[SETS];
#pragma unroll
                for (int set = 0; set < SETS; set++) own[set] = merge(found[set], top[set], sum[set], before[set]);
                if (is_odd) {
#pragma unroll
                    for (int set = 0; set < SETS; set++) {
                        u32 kept[4 * PIECES];
                        float odd[TILES][2];
#pragma unroll
                        for (int i = 0; i < 4 * PIECES; i++) kept[i] = shares[set][i / 2][i % 2];
                        odd_values<DIM, FORMAT>(&odd[0][0], kept, own_values, seen[set], base);
#pragma unroll
                        for (int tile = 0; tile < TILES; tile++) {
                            mixed[tile][set][0] = merged(mixed[tile][set][0], before[set], odd[tile][0], own[set]);
                            mixed[tile][set][1] = merged(mixed[tile][set][1], before[set], odd[tile][1], own[set]);
                        }
                    }
                } else {
                    constexpr int AT_ONCE = 4 / SETS;
#pragma unroll
                    for (int from = 0; from < TILES; from += AT_ONCE) {
                        float sums[AT_ONCE][SETS][4];
#pragma unroll
                        for (int i = 0; i < AT_ONCE; i++) {
#pragma unroll
                            for (int set = 0; set < SETS; set++) sums[i][set][0] = sums[i][set][1] = sums[i][set][2] = sums[i][set][3] = 0.0f;
                        }
#pragma unroll
                        for (int pair = 0; pair < PIECES; pair += 2) {
                            u32 loaded[AT_ONCE][4];
#pragma unroll
                            for (int i = 0; i < AT_ONCE; i++)
                                if (from + i < TILES) transposed4(loaded[i], own_values + pair * PIECE * STRIDE * 2 + (from + i) * 16);
#pragma unroll
                            for (int half = 0; half < 2; half++) {
                                int tile = 2 * (pair + half);
                                Parts<SETS> factors;
                                if constexpr (SETS == 1) {
                                    factors = {{{shares[0][tile][0], shares[0][tile][1], shares[0][tile + 1][0], shares[0][tile + 1][1]}}};
                                } else {
#pragma unroll
                                    for (int part = 0; part < 2; part++) {
                                        factors.own[part][0] = shares[0][tile][part];
                                        factors.own[part][1] = shares[SETS - 1][tile][part];
                                        factors.own[part][2] = shares[0][tile + 1][part];
                                        factors.own[part][3] = shares[SETS - 1][tile + 1][part];
                                    }
                                }
#pragma unroll
                                for (int i = 0; i < AT_ONCE; i++)
                                    if (from + i < TILES) multiply_parts<FORMAT>(sums[i], factors, loaded[i][2 * half], loaded[i][2 * half + 1]);
                            }
                        }
#pragma unroll
                        for (int i = 0; i < AT_ONCE; i++) {
                            if (from + i >= TILES) continue;
#pragma unroll
                            for (int set = 0; set < SETS; set++) {
                                float(&both)[2] = mixed[from + i][set];
                                both[0] = merged(both[0], before[set], sum_of(sums[i], set, 0), own[set]);
                                both[1] = merged(both[1], before[set], sum_of(sums[i], set, 1), own[set]);
                            }
                        }
                    }
                }
            }
            __syncthreads();
            // Values are done with.
            if (is_next) {
                if (IN_TURN) bring<DIM, FORMAT, 32 * ROWS_WARPS>(cache, keys, cache.keys, places[(split + 1) % 2], key_scales);
                else bring<DIM, FORMAT, 32 * ROWS_WARPS>(cache, values, cache.values, places[(split + 1) % 2], value_scales);
            }
            copies_end();
        }
    }
#pragma unroll
    for (int set = 0; set < SETS; set++) {
        u32 query = first_query + 8 * set + lane / 4, head = kv_head * of_kv_head + query % of_kv_head;
        if (query >= query_count) continue;
        float factor = end_with(found[set], flash.sinks, head);
        float* out = flash.out + ((u64)(first_row + query / of_kv_head) * flash.heads + head) * DIM;
        bool sees = seen[set].end > 0;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            float x = result_of(mixed[tile][set][0], factor, found[set]), y = result_of(mixed[tile][set][1], factor, found[set]);
            *(float2*)(out + tile * 8 + 2 * (lane % 4)) = sees ? make_float2(x, y) : make_float2(0.0f, 0.0f);
        }
    }
}

#define ROWS_SETS(DIM) ((DIM) <= 128 ? MOST_SETS : 1)

#define FLASH(DIM, FORMAT, NAME)                                                                                                                       \
    extern "C" __global__ void __launch_bounds__(32 * SPLIT_WARPS, 2)                                                                                  \
        flash_split_##NAME##_##DIM(Flash flash, const u32* rows, u32 first_row, float* mixed, float2* states, u32 most, u32* arrivals) {                              \
        split_attention<DIM, FORMAT>(flash, rows, first_row, mixed, states, most, arrivals);                                                                      \
    }                                                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(32 * ROWS_WARPS, ROWS_SETS(DIM) == 2 || (DIM) > 128 ? 2 : 3)                                                                               \
        flash_rows_##NAME##_##DIM(Flash flash, const u32* row_tiles, u32 tile_rows) {                                                                  \
        rows_attention<DIM, FORMAT, ROWS_SETS(DIM)>(flash, row_tiles, tile_rows);                                                                                      \
    }

// A decoding step's products as one kernel, which stays: a block on each multiprocessor goes through all stages. What one stage writes and the
// next one reads are words of 64 bits, half a number and half the number of the stage that wrote it, so who reads knows whether it has come:
// there are no barriers between blocks, and weights are asked for before there is anything to multiply them with.
//
// A word is written again only when all that read it have gone on: whoever writes has read all of the stage before, which has parts of all
// blocks that have read the stage before that.

#define STAY_THREADS 512
#define STAY_WARPS 16
// Tiles whose weights are on their way to a warp.
#define STAY_AHEAD 2
#define SPINS (1u << 26)

struct StayPart {
    const u8* tiles;
    const float* bias;
    // Numbers are words where the next stage reads them, and plain ones otherwise.
    u64* words;
    float* out;
    const u64* residual;
    const float* plain_residual;
    u32 outputs;
    u32 tiles_before;
};

struct StayStage {
    StayPart parts[3];
    const u64* words;
    const float* plain;
    RowNorm norm;
    // Stages that must have come: how many stages ago what is read was written.
    u32 back, residual_back;
    u32 columns, quads, splits, tiles;
    int is_gated, is_f16, kind, activation_kind;
    float p, q;
};

struct StayProgram {
    const StayStage* stages;
    u32 count;
    // The number of the last stage of the step before, blocks that are done, what went wrong.
    u32* state;
};

__device__ __forceinline__ void store_word(u64* to, float value, u32 epoch) {
    u64 word = (u64)epoch << 32 | __float_as_uint(value);
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(word) : "memory");
}

__device__ __forceinline__ void load_words(const u64* from, u64& a, u64& b) {
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0,%1}, [%2];" : "=l"(a), "=l"(b) : "l"(from) : "memory");
}

// Four numbers of a stage, when they have come.
__device__ __forceinline__ float4 await_words(const u64* from, u32 epoch) {
    u64 a, b, c, d;
    u32 spins = 0;
    for (;;) {
        load_words(from, a, b);
        load_words(from + 2, c, d);
        u32 missing = ((u32)(a >> 32) ^ epoch) | ((u32)(b >> 32) ^ epoch) | ((u32)(c >> 32) ^ epoch) | ((u32)(d >> 32) ^ epoch);
        if (!missing) break;
        if (++spins > SPINS) __trap();
    }
    return make_float4(__uint_as_float((u32)a), __uint_as_float((u32)b), __uint_as_float((u32)c), __uint_as_float((u32)d));
}

__device__ __forceinline__ float await_word(const u64* from, u32 epoch) {
    u64 word;
    u32 spins = 0;
    for (;;) {
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(word) : "l"(from) : "memory");
        if ((u32)(word >> 32) == epoch) break;
        if (++spins > SPINS) __trap();
    }
    return __uint_as_float((u32)word);
}

// Items of a warp in a stage, one after the other: a unit is a split of a tile (of both matrices where it is gated), a warp has every 16th unit
// of its block's tiles, and an item is a tile's part in one turn.
struct StayItems {
    // The unit's tile (from the block's first one, twice where it is gated), its split, and the next turn.
    u32 tile, split, turn;
    u32 tiles, splits, tile_step, split_step;
};

// What a block has of a stage, worked out once.
struct StayShare {
    u32 first, end, tile_step, split_step;
};

__device__ __forceinline__ StayItems items_of(const StayStage& stage, const StayShare& share, u32 warp) {
    StayItems items;
    items.splits = stage.splits;
    items.tiles = (share.end - share.first) << stage.is_gated;
    items.tile = 0;
    items.split = warp;
    while (items.split >= items.splits) items.split -= items.splits, items.tile++;
    items.tile_step = share.tile_step;
    items.split_step = share.split_step;
    items.turn = 0;
    return items;
}

__device__ __forceinline__ bool are_left(const StayItems& items) { return items.tile < items.tiles; }

// Goes on to the next item; true if that is of another unit.
__device__ __forceinline__ bool next_item(StayItems& items, u32 quads) {
    items.turn++;
    if (items.split + items.turn * items.splits < quads) return false;
    items.turn = 0;
    items.tile += items.tile_step;
    items.split += items.split_step;
    if (items.split >= items.splits) items.split -= items.splits, items.tile++;
    return true;
}

__device__ __forceinline__ void stay_load(uint4 (&w)[4], uint2& scales, const StayStage& stage, u32 first, const StayItems& items, u32 lane) {
    u32 tile = first + (items.tile >> stage.is_gated), which;
    if (stage.is_gated) which = items.tile & 1;
    else which = tile >= stage.parts[1].tiles_before ? tile >= stage.parts[2].tiles_before ? 2 : 1 : 0;
    const StayPart& part = stage.parts[which];
    const u8* from = part.tiles + ((u64)(tile - part.tiles_before) * stage.quads + items.split + items.turn * items.splits) * TILE_BYTES;
#pragma unroll
    for (int t = 0; t < 4; t++) w[t] = load_once((const uint4*)(from + 512 * t) + lane);
    scales = load_once((const uint2*)(from + TILE_SCALES + 64 * (lane % 4)) + lane / 4);
}

// Sums of a unit's splits, in their order.
__device__ __forceinline__ float sum_of(const float* own, u32 splits) {
    float terms[STAY_WARPS];
#pragma unroll
    for (u32 s = 0; s < STAY_WARPS; s++) terms[s] = s < splits ? own[16 * s] : 0.0f;
    float value = 0.0f;
#pragma unroll
    for (u32 s = 0; s < STAY_WARPS; s++) {
        if (s < splits) value += terms[s];
    }
    return value;
}

// Rows of four numbers that a thread awaits together.
#define STAY_TOGETHER 3

extern "C" __global__ void __launch_bounds__(STAY_THREADS, 1) stay(StayProgram program) {
    extern __shared__ __align__(16) u8 shared_bytes[];
    u32 warp = __shfl_sync(FULL, threadIdx.x / 32, 0), lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
    const StayStage* stages = (const StayStage*)shared_bytes;
    u32 of_stages = (program.count * (u32)sizeof(StayStage) + 15) / 16 * 16;
    for (u32 i = threadIdx.x; i < of_stages / 4; i += STAY_THREADS) ((u32*)shared_bytes)[i] = ((const u32*)program.stages)[i];
    StayShare* shares = (StayShare*)(shared_bytes + of_stages);
    of_stages += program.count * (u32)sizeof(StayShare);
    for (u32 i = threadIdx.x; i < program.count; i += STAY_THREADS) {
        u32 tiles = program.stages[i].tiles, splits = program.stages[i].splits;
        shares[i].first = (u64)blockIdx.x * tiles / gridDim.x;
        shares[i].end = (u64)(blockIdx.x + 1) * tiles / gridDim.x;
        shares[i].tile_step = STAY_WARPS / splits;
        shares[i].split_step = STAY_WARPS % splits;
    }
    wait_for_inputs();
    u32 base = program.state[0];
    __syncthreads();
    uint4 w[STAY_AHEAD][4];
    uint2 scales[STAY_AHEAD];
    StayItems ahead = items_of(stages[0], shares[0], warp);
#pragma unroll
    for (int slot = 0; slot < STAY_AHEAD; slot++) {
        if (are_left(ahead)) {
            stay_load(w[slot], scales[slot], stages[0], shares[0].first, ahead, lane);
            next_item(ahead, stages[0].quads);
        }
    }
#pragma unroll 1
    for (u32 number = 0; number < program.count; number++) {
        const StayStage& stage = stages[number];
        const u32 quads = stage.quads, columns = stage.columns;
        const bool is_f16 = stage.is_f16;
        const u32 gated = stage.is_gated;
        const u32 epoch = base + number + 1, first = shares[number].first, end = shares[number].end;
        Staged staged = staged_in(shared_bytes + of_stages, quads);
        float* sums = staged.squares + 4 * quads;
        // What is added to the first outputs of a thread is there already, or nearly.
        u32 first_which = gated ? 0 : first + threadIdx.x / 16 >= stage.parts[1].tiles_before ? first + threadIdx.x / 16 >= stage.parts[2].tiles_before ? 2 : 1 : 0;
        const StayPart& first_part = stage.parts[first_which];
        u32 first_output = 16 * (first + threadIdx.x / 16 - first_part.tiles_before) + threadIdx.x % 16;
        bool is_first = first + threadIdx.x / 16 < end && first_output < first_part.outputs;
        u64 residual_word = 0;
        float residual = 0.0f;
        if (is_first && first_part.residual)
            asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(residual_word) : "l"(first_part.residual + first_output) : "memory");
        if (is_first && first_part.plain_residual) residual = first_part.plain_residual[first_output];
        if (first < end) {
            u32 expected = epoch - stage.back;
            for (u32 begin = threadIdx.x; begin < staged.padded / 4; begin += STAY_TOGETHER * STAY_THREADS) {
                float4 x[STAY_TOGETHER], weight[STAY_TOGETHER];
                bool is_inside[STAY_TOGETHER];
#pragma unroll
                for (u32 k = 0; k < STAY_TOGETHER; k++) {
                    u32 i = begin + k * STAY_THREADS;
                    is_inside[k] = 4 * i < columns;
                    weight[k] = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
                    if (is_inside[k] && stage.norm.weight) weight[k] = __ldg((const float4*)stage.norm.weight + i);
                }
                if (stage.words) {
                    u64 words[STAY_TOGETHER][4];
                    u32 spins = 0, missing;
                    // One lane of a warp asks until its first number has come, then all ask.
                    if (lane == 0) await_word(stage.words + 4 * begin, expected);
                    __syncwarp();
                    do {
                        missing = 0;
#pragma unroll
                        for (u32 k = 0; k < STAY_TOGETHER; k++) {
                            words[k][0] = words[k][1] = words[k][2] = words[k][3] = (u64)expected << 32;
                            const u64* from = stage.words + 4 * (begin + k * STAY_THREADS);
                            if (is_inside[k]) {
                                load_words(from, words[k][0], words[k][1]);
                                load_words(from + 2, words[k][2], words[k][3]);
                            }
                        }
#pragma unroll
                        for (u32 k = 0; k < STAY_TOGETHER; k++) {
#pragma unroll
                            for (u32 j = 0; j < 4; j++) missing |= (u32)(words[k][j] >> 32) ^ expected;
                        }
                        if (++spins > SPINS) __trap();
                    } while (__any_sync(FULL, missing));
#pragma unroll
                    for (u32 k = 0; k < STAY_TOGETHER; k++)
                        x[k] = make_float4(__uint_as_float((u32)words[k][0]), __uint_as_float((u32)words[k][1]), __uint_as_float((u32)words[k][2]), __uint_as_float((u32)words[k][3]));
                } else {
#pragma unroll
                    for (u32 k = 0; k < STAY_TOGETHER; k++)
                        x[k] = is_inside[k] ? ((const float4*)stage.plain)[begin + k * STAY_THREADS] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                }
#pragma unroll
                for (u32 k = 0; k < STAY_TOGETHER; k++) {
                    u32 i = begin + k * STAY_THREADS;
                    if (i >= staged.padded / 4) break;
                    float4 own = x[k];
                    if (stage.norm.is_there) {
                        float squares = group_squares(own);
                        if (i % 16 == 0) staged.squares[i / 16] = squares;
                        own = times(own, weight[k]);
                    }
                    float2 group;
                    u32 high, low;
                    to_integers(own, high, low, group);
                    ((u32*)staged.bytes)[i] = high;
                    ((u32*)(staged.bytes + staged.padded))[i] = low;
                    if (i % 16 == 0) staged.groups[i / 16] = group;
                }
            }
        }
        __syncthreads();
        float factor = stage.norm.is_there ? norm_factor(staged.squares, 4 * quads, columns, stage.norm.eps) : 1.0f;
        float upper = 0.0f, lower = 0.0f;
        StayItems now = items_of(stage, shares[number], warp);
#pragma unroll 1
        while (are_left(now)) {
#pragma unroll
            for (int slot = 0; slot < STAY_AHEAD; slot++) {
                if (!are_left(now)) break;
                u32 quad = now.split + now.turn * now.splits;
                const u8* bytes = staged.bytes + (g & 1) * staged.padded + 256 * quad + 16 * c;
                float2 group = staged.groups[4 * quad + c];
                int even[4] = {0, 0, 0, 0}, odd[4] = {0, 0, 0, 0};
#pragma unroll
                for (int t = 0; t < 4; t++) {
                    uint4 b = make_uint4(0, 0, 0, 0);
                    if (g / 2 == t) b = *(const uint4*)(bytes + 64 * t);
                    const u32 LOW = 0x0f0f0f0fu, HIGH = 0xf0f0f0f0u;
                    mma_u8s8(even, w[slot][t].x & LOW, w[slot][t].y & LOW, w[slot][t].z & LOW, w[slot][t].w & LOW, b.x, b.y);
                    mma_u8s8(odd, w[slot][t].x & HIGH, w[slot][t].y & HIGH, w[slot][t].z & HIGH, w[slot][t].w & HIGH, b.z, b.w);
                }
                uint2 own = scales[slot];
                if (are_left(ahead)) {
                    stay_load(w[slot], scales[slot], stage, first, ahead, lane);
                    next_item(ahead, quads);
                }
                int above = even[0] * 4096 + (even[1] * 16 + (odd[0] * 256 + odd[1])), below = even[2] * 4096 + (even[3] * 16 + (odd[2] * 256 + odd[3]));
                upper = fmaf(first_of(own.x, is_f16), (float)above * group.x, fmaf(first_of(own.y, is_f16), group.y, upper));
                lower = fmaf(second_of(own.x, is_f16), (float)below * group.x, fmaf(second_of(own.y, is_f16), group.y, lower));
                float* to = sums + (now.tile * now.splits + now.split) * 16 + g;
                if (next_item(now, quads)) {
#pragma unroll
                    for (u32 step = 1; step < 4; step++) {
                        float a = __shfl_up_sync(FULL, upper, 1), b = __shfl_up_sync(FULL, lower, 1);
                        if (c == step) upper += a, lower += b;
                    }
                    if (c == 3) to[0] = upper, to[8] = lower;
                    upper = lower = 0.0f;
                }
            }
        }
        // Weights of the next stage are asked for before this one is done.
        if (number + 1 < program.count) {
            ahead = items_of(stages[number + 1], shares[number + 1], warp);
#pragma unroll
            for (int slot = 0; slot < STAY_AHEAD; slot++) {
                if (are_left(ahead)) {
                    stay_load(w[slot], scales[slot], stages[number + 1], shares[number + 1].first, ahead, lane);
                    next_item(ahead, stages[number + 1].quads);
                }
            }
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < 16 * (end - first); i += STAY_THREADS) {
            u32 place_in = i / 16, row = i % 16, tile = first + place_in;
            u32 which = gated ? 0 : tile >= stage.parts[1].tiles_before ? tile >= stage.parts[2].tiles_before ? 2 : 1 : 0;
            const StayPart& part = stage.parts[which];
            u32 output = 16 * (tile - part.tiles_before) + row;
            if (output >= part.outputs) continue;
            const float* own = sums + (place_in << gated) * stage.splits * 16 + row;
            float value = __fmul_rn(sum_of(own, stage.splits), factor);
            if (part.bias) value += part.bias[output];
            if (gated) {
                const StayPart& up = stage.parts[1];
                float second = __fmul_rn(sum_of(own + stage.splits * 16, stage.splits), factor);
                if (up.bias) second += up.bias[output];
                value = gate_of(stage.kind, stage.activation_kind, stage.p, stage.q, value, second);
            }
            if (i == threadIdx.x) {
                if (part.residual) {
                    bool has_come = (u32)(residual_word >> 32) == epoch - stage.residual_back;
                    residual = has_come ? __uint_as_float((u32)residual_word) : await_word(part.residual + output, epoch - stage.residual_back);
                }
            } else {
                if (part.residual) residual = await_word(part.residual + output, epoch - stage.residual_back);
                if (part.plain_residual) residual = part.plain_residual[output];
            }
            if (part.residual || part.plain_residual) value += residual;
            if (part.words) store_word(part.words + output, value, epoch);
            else part.out[output] = value;
        }
        // What is staged and summed is free again.
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        __threadfence();
        if (atomicAdd(program.state + 1, 1) == gridDim.x - 1) {
            program.state[1] = 0;
            program.state[0] = base + program.count;
        }
    }
}

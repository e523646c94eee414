// The KV cache and the rows of a step, as kernels see them.

struct Cache {
    u8* keys;
    u8* values;
    u32 pages;
    u32 page_size;
    u32 kv_heads;
    u32 key_dim;
    u32 value_dim;
    // Numbers from one row of values to the next: those of a key where values are part of the keys.
    u32 value_stride;
    // 0 f32, 1 f16, 2 bf16, 3 bytes with a scale for each row, which stand after the rows of their block.
    u32 format;
};

__device__ __forceinline__ u64 block_bytes(const Cache& cache, u32 dim) {
    u64 element = cache.format == 0 ? 4 : cache.format == 3 ? 1 : 2;
    return cache.page_size * (dim * element + (cache.format == 3 ? 4 : 0));
}

// One row of one head.
struct Row {
    const u8* numbers;
    float scale;
};

__device__ __forceinline__ float float_at(const u8* bytes) {
    return __uint_as_float(bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (u32)bytes[3] << 24);
}

__device__ __forceinline__ Row cache_row(const Cache& cache, const u8* base, u32 dim, u32 page, u32 offset, u32 head) {
    const u8* block = base + ((u64)page * cache.kv_heads + head) * block_bytes(cache, dim);
    u64 element = cache.format == 0 ? 4 : cache.format == 3 ? 1 : 2;
    Row row;
    row.numbers = block + (u64)offset * dim * element;
    row.scale = cache.format == 3 ? float_at(block + (u64)cache.page_size * dim + 4 * offset) : 1.0f;
    return row;
}

__device__ __forceinline__ float number_at(const Row& row, u32 i, u32 format) {
    switch (format) {
        case 0: return ((const float*)row.numbers)[i];
        case 1: return of_f16(((const u16*)row.numbers)[i]);
        case 2: return of_bf16(((const u16*)row.numbers)[i]);
        default: return ((const signed char*)row.numbers)[i] * row.scale;
    }
}

// A step's rows, and the pages of their sequences in a cache group.
struct Step {
    const u32* indices;
    const u32* ends;
    const u32* row_sequences;
    const u32* table;
    u32 table_width;
};

__device__ __forceinline__ u32 first_seen(u32 index, u32 kind, u32 limit) {
    if (kind == 0) return 0;
    if (kind == 1) return index + 1 > limit ? index + 1 - limit : 0;
    return index - index % limit;
}

// How many of a row's chosen keys it sees: they ascend, and end where the row sees no more.
__device__ __forceinline__ u32 seen_among(const u32* chosen, u32 width, u32 end) {
    u32 low = 0, high = width;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (chosen[middle] < end) low = middle + 1;
        else high = middle;
    }
    return low;
}

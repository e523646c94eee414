// What all kernels share. NVRTC has no headers of its own, so nothing is included.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INFINITE __int_as_float(0x7f800000)
#define FULL 0xffffffffu

// Threads of a block that works on one row.
#define ROW_THREADS 128

__device__ __forceinline__ float of_f16(u16 bits) {
    float value;
    asm("{ .reg .f16 h; mov.b16 h, %1; cvt.f32.f16 %0, h; }" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ float of_bf16(u16 bits) { return __uint_as_float((u32)bits << 16); }

__device__ __forceinline__ u16 to_f16(float value) {
    u16 bits;
    asm("{ .reg .f16 h; cvt.rn.f16.f32 h, %1; mov.b16 %0, h; }" : "=h"(bits) : "f"(value));
    return bits;
}

// To nearest, ties to even; a NaN stays one.
__device__ __forceinline__ u16 to_bf16(float value) {
    u32 bits = __float_as_uint(value);
    if (value != value) return (u16)((bits >> 16) | 0x40);
    return (u16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The larger; a NaN wins.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }

// The larger; a NaN loses.
__device__ __forceinline__ float highest(float a, float b) { return fmaxf(a, b); }

// Clamps that let a NaN through.
__device__ __forceinline__ float at_most(float limit, float x) { return x > limit ? limit : x; }
__device__ __forceinline__ float within(float limit, float x) { return x > limit ? limit : x < -limit ? -limit : x; }

__device__ __forceinline__ float warp_sum(float value) {
    for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(FULL, value, step);
    return value;
}

// The sum over a block of ROW_THREADS, to every thread, in an order of its own for each thread number alone.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float sums[ROW_THREADS / 32];
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = sums[0];
    for (int warp = 1; warp < ROW_THREADS / 32; warp++) sum += sums[warp];
    return sum;
}

// The highest over a block; NaNs lose.
__device__ __forceinline__ float block_highest(float value) {
    __shared__ float values[ROW_THREADS / 32];
    for (int step = 16; step > 0; step >>= 1) value = highest(value, __shfl_xor_sync(FULL, value, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0) values[threadIdx.x / 32] = value;
    __syncthreads();
    float found = values[0];
    for (int warp = 1; warp < ROW_THREADS / 32; warp++) found = highest(found, values[warp]);
    return found;
}

// The number of this thread in the grid.
__device__ __forceinline__ u64 place() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }

// Waits for what the kernel before this one writes: on devices that can, kernels begin early. Every kernel calls it before it reads or
// writes anything but weights.
__device__ __forceinline__ void wait_for_inputs() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the kernel after this one begin, and wait.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// What most kernels begin with.
__device__ __forceinline__ void begin() {
    wait_for_inputs();
    let_next_begin();
}

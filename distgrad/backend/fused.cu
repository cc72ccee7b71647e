// What stands before generated kernels: floats of 16 bits as memory, sums over the threads of a row.
// Numbers are computed in float where memory has half of it, and rounded after each operation.
// A Brain is a bfloat16: the upper half of a float.

typedef unsigned long long u64;
typedef long long i64;

struct Half {
    unsigned short bits;
};
struct Brain {
    unsigned short bits;
};

#ifdef __CUDACC__
__device__ inline unsigned short half_bits(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ inline float from_half(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
__device__ inline unsigned int float_bits(float x) { return __float_as_uint(x); }
__device__ inline float from_bits(unsigned int bits) { return __uint_as_float(bits); }
#else
static inline unsigned short half_bits(float x) {
    const _Float16 half = (_Float16)x;
    unsigned short bits;
    __builtin_memcpy(&bits, &half, 2);
    return bits;
}
static inline float from_half(unsigned short bits) {
    _Float16 half;
    __builtin_memcpy(&half, &bits, 2);
    return (float)half;
}
static inline unsigned int float_bits(float x) {
    unsigned int bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}
static inline float from_bits(unsigned int bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
#endif

// To the nearest, the even one of two; a nan stays one.
__device__ inline unsigned short brain_bits(float x) {
    const unsigned int bits = float_bits(x), upper = bits >> 16;
    return x != x ? (upper & 0x8000u) | 0x7fc0u : (bits + 0x7fffu + (upper & 1u)) >> 16;
}
__device__ inline float from_brain(unsigned short bits) { return from_bits((unsigned int)bits << 16); }

template <class A> __device__ inline A get(A x) { return x; }
__device__ inline float get(Half x) { return from_half(x.bits); }
__device__ inline float get(Brain x) { return from_brain(x.bits); }
template <class A> __device__ inline void put(A &to, A x) { to = x; }
__device__ inline void put(Half &to, float x) { to.bits = half_bits(x); }
__device__ inline void put(Brain &to, float x) { to.bits = brain_bits(x); }
__device__ inline float as_half(float x) { return from_half(half_bits(x)); }
__device__ inline float as_brain(float x) { return from_brain(brain_bits(x)); }

// `W` threads, side by side, work on one row: each gives a number and gets what they make together,
// always in the same order.
template <int W, class A> __device__ inline A whole_sum(A value, A *shared) {
    const int lane = threadIdx.x % W;
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = W / 2; half; half /= 2) {
        if (lane < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    const A total = shared[threadIdx.x - lane];
    __syncthreads();
    return total;
}

// The larger of two, or the smaller one; a nan stays, as in NumPy.
template <class A> __device__ inline A larger(A a, A b) { return a >= b || a != a ? a : b; }
template <class A> __device__ inline A smaller(A a, A b) { return a <= b || a != a ? a : b; }

template <int W, class A> __device__ inline A whole_max(A value, A *shared) {
    const int lane = threadIdx.x % W;
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = W / 2; half; half /= 2) {
        if (lane < half)
            shared[threadIdx.x] = larger(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    const A largest = shared[threadIdx.x - lane];
    __syncthreads();
    return largest;
}

template <int W, class A> __device__ inline A whole_min(A value, A *shared) {
    return -whole_max<W>(-value, shared);
}

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
// What other blocks have written: what this multiprocessor keeps may be older.
template <class A> __device__ inline A fresh(const A *from) { return __ldcg(from); }
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
template <class A> static inline A fresh(const A *from) { return *from; }
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

// Neighbours that are read or written at once, 16 bytes at a time at most.
template <class A, int N> struct alignas(N * sizeof(A) < 16 ? N * sizeof(A) : 16) Pack {
    A at[N];
};

// The larger of two, or the smaller one; a nan stays, as in NumPy.
template <class A> __device__ inline A larger(A a, A b) { return a >= b || a != a ? a : b; }
template <class A> __device__ inline A smaller(A a, A b) { return a <= b || a != a ? a : b; }

struct Sum {
    template <class A> __device__ static A of(A a, A b) { return a + b; }
};
struct Max {
    template <class A> __device__ static A of(A a, A b) { return larger(a, b); }
};
struct Min {
    template <class A> __device__ static A of(A a, A b) { return smaller(a, b); }
};

// `W` threads, side by side, work on one row: each gives a number and gets what they make together,
// always in the same order. The lanes of a warp exchange theirs; warps, if a row has several, meet.
template <class Make, int W, class A> __device__ inline A whole(A value, A *shared) {
    for (int half = (W < 32 ? W : 32) / 2; half; half /= 2)
        value = Make::of(value, __shfl_xor_sync(~0u, value, half));
    if (W <= 32) return value;
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    const int first = threadIdx.x / W * (W / 32);
    A made = shared[first];
    for (int i = 1; i < W / 32; i++) made = Make::of(made, shared[first + i]);
    __syncthreads();
    return made;
}

// Kernels over rows and flat arrays. T is float or double: the host puts the typedef in front.
// They are compiled without fused multiply-add, and sum in a fixed order: the same bits every time,
// whoever runs them. One block works on one row; blockDim.x is a power of two, at most 1024.

typedef unsigned long long u64;
typedef long long i64;

// 128-bit product of two words: its high half.
__device__ inline u64 high_word(u64 a, u64 b) { return __umul64hi(a, b); }

// Philox 4x64 with 10 rounds (Salmon et al., SC'11), as numpy.random.Philox has it.
__device__ inline void philox(u64 *c, u64 k0, u64 k1) {
    for (int round = 0; round < 10; round++) {
        u64 h0 = high_word(0xD2E7470EE14C6C93ULL, c[0]), l0 = 0xD2E7470EE14C6C93ULL * c[0];
        u64 h1 = high_word(0xCA5A826395121157ULL, c[2]), l1 = 0xCA5A826395121157ULL * c[2];
        u64 c1 = c[1], c3 = c[3];
        c[0] = h1 ^ c1 ^ k0;
        c[1] = l1;
        c[2] = h0 ^ c3 ^ k1;
        c[3] = l0;
        k0 += 0x9E3779B97F4A7C15ULL;
        k1 += 0xBB67AE8584CAA73BULL;
    }
}

// Four numbers that a thread reads and writes at once.
struct alignas(4 * sizeof(T)) Four {
    T at[4];
};

__device__ inline bool aligned(const T *x) { return (u64)x % sizeof(Four) == 0; }

// Uniform numbers in [0, 1), as numpy.random.Generator.random draws them from that key. A thread
// makes one block of four words: 8 floats, or 4 doubles.
__device__ inline void draw(T *out, i64 n, u64 k0, u64 k1, u64 c2, u64 c3) {
    const int each = sizeof(T) == 4 ? 8 : 4;
    const i64 block = (i64)blockIdx.x * blockDim.x + threadIdx.x, start = block * each;
    if (start >= n) return;
    u64 c[4] = {(u64)block + 1, 0, c2, c3};  // NumPy counts up before it draws
    philox(c, k0, k1);
    Four made[each / 4];
    for (int i = 0; i < each; i++) {
        const unsigned int word = (unsigned int)(c[i * 4 / each] >> (i % 2 ? 32 : 0));
        made[i / 4].at[i % 4] = sizeof(T) == 4 ? (T)(word >> 8) * (T)(1.0 / 16777216.0)
                                               : (T)(c[i % 4] >> 11) * (T)(1.0 / 9007199254740992.0);
    }
    if (start + each <= n && aligned(out)) {
        for (int i = 0; i < each / 4; i++) ((Four *)(out + start))[i] = made[i];
        return;
    }
    for (int i = 0; i < each && start + i < n; i++) out[start + i] = made[i / 4].at[i % 4];
}

extern "C" __global__ void uniform(T *out, i64 n, u64 k0, u64 k1, u64 c2, u64 c3) {
    draw(out, n, k0, k1, c2, c3);
}

// The same, from a key in the memory of the device.
extern "C" __global__ void uniform_from(T *out, i64 n, const u64 *key) {
    draw(out, n, key[0], key[1], key[2], key[3]);
}

// Adam on a flat slice of the arenas, operation by operation as on the CPU.
__device__ inline void adam_one(T &p, T &m, T &s, T g, T alpha, T rest_1, T rest_2, T epsilon) {
    const T first = m + (g - m) * rest_1;
    const T second = s + (g * g - s) * rest_2;
    m = first;
    s = second;
    p = p - first / (sqrt(second) + epsilon) * alpha;
}

// The same on n elements, by those of ``all`` threads that this is number ``first`` of.
__device__ inline void adam_flat(T *__restrict__ p, T *__restrict__ m, T *__restrict__ s,
                                 const T *__restrict__ g, i64 n, i64 first, i64 all, T alpha,
                                 T rest_1, T rest_2, T epsilon) {
    i64 done = 0;
    if (aligned(p) && aligned(m) && aligned(s) && aligned(g)) {
        done = n / 4 * 4;
        for (i64 i = first; i < n / 4; i += all) {
            Four value = ((Four *)p)[i], one = ((Four *)m)[i], two = ((Four *)s)[i];
            const Four gradient = ((const Four *)g)[i];
            for (int j = 0; j < 4; j++)
                adam_one(value.at[j], one.at[j], two.at[j], gradient.at[j], alpha, rest_1, rest_2,
                         epsilon);
            ((Four *)m)[i] = one;
            ((Four *)s)[i] = two;
            ((Four *)p)[i] = value;
        }
    }
    for (i64 i = done + first; i < n; i += all)
        adam_one(p[i], m[i], s[i], g[i], alpha, rest_1, rest_2, epsilon);
}

extern "C" __global__ void adam(T *__restrict__ p, T *__restrict__ m, T *__restrict__ s,
                                const T *__restrict__ g, i64 n, T alpha, T rest_1, T rest_2,
                                T epsilon) {
    adam_flat(p, m, s, g, n, (i64)blockIdx.x * blockDim.x + threadIdx.x,
              (i64)gridDim.x * blockDim.x, alpha, rest_1, rest_2, epsilon);
}

// The same, left out where one of ``count`` losses, ``step`` elements apart, is not finite.
extern "C" __global__ void adam_where_finite(T *__restrict__ p, T *__restrict__ m,
                                             T *__restrict__ s, const T *__restrict__ g, i64 n,
                                             T alpha, T rest_1, T rest_2, T epsilon,
                                             const T *__restrict__ losses, i64 count, i64 step) {
    for (i64 i = 0; i < count; i++)
        if (!(losses[i * step] - losses[i * step] == 0)) return;
    adam_flat(p, m, s, g, n, (i64)blockIdx.x * blockDim.x + threadIdx.x,
              (i64)gridDim.x * blockDim.x, alpha, rest_1, rest_2, epsilon);
}

// An array of a table, from an element on. Compilers do not know that addresses in it are global.
__device__ inline T *listed(i64 address, i64 start) {
    T *found = (T *)address + start;
    __builtin_assume(__isGlobal(found));
    return found;
}

// Adam on many arrays: a block does the chunk that the table (see tables.py) has for it.
extern "C" __global__ void adam_each(const i64 *__restrict__ table, i64 arrays, i64 chunk, T alpha,
                                     T rest_1, T rest_2, T epsilon) {
    const i64 *mine = table + 5 * arrays + 2 * (i64)blockIdx.x, *row = table + 5 * mine[0];
    const i64 start = mine[1], left = row[4] - start;
    adam_flat(listed(row[0], start), listed(row[1], start), listed(row[2], start),
              listed(row[3], start), left < chunk ? left : chunk, threadIdx.x, blockDim.x, alpha,
              rest_1, rest_2, epsilon);
}

// Copies of many arrays into others, likewise.
extern "C" __global__ void copy_each(const i64 *__restrict__ table, i64 arrays, i64 chunk) {
    const i64 *mine = table + 3 * arrays + 2 * (i64)blockIdx.x, *row = table + 3 * mine[0];
    const i64 start = mine[1], left = row[2] - start, n = left < chunk ? left : chunk;
    T *target = listed(row[0], start);
    const T *source = listed(row[1], start);
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) target[i] = source[i];
}

// Every thread of a block gives a number; every thread gets the sum (or the largest) of them all:
// warp by warp, then over the warps.
__device__ inline T whole_sum(T value, T *shared) {
    for (int half = 16; half; half /= 2) value += __shfl_xor_sync(~0u, value, half);
    if (blockDim.x <= 32) return value;
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    T total = shared[0];
    for (int i = 1; i < (int)blockDim.x / 32; i++) total += shared[i];
    __syncthreads();
    return total;
}

// The larger of two; a nan stays, as in NumPy.
__device__ inline T larger(T a, T b) { return a >= b || a != a ? a : b; }

__device__ inline T whole_max(T value, T *shared) {
    for (int half = 16; half; half /= 2) value = larger(value, __shfl_xor_sync(~0u, value, half));
    if (blockDim.x <= 32) return value;
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    T largest = shared[0];
    for (int i = 1; i < (int)blockDim.x / 32; i++) largest = larger(largest, shared[i]);
    __syncthreads();
    return largest;
}

__device__ inline T row_max(const T *x, i64 n, T *shared) {
    T largest = x[threadIdx.x < n ? threadIdx.x : 0];
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) largest = larger(largest, x[i]);
    return whole_max(largest, shared);
}

// Softmax of each row.
extern "C" __global__ void softmax(T *out, const T *x, i64 n) {
    __shared__ T shared[32];
    x += blockIdx.x * n;
    out += blockIdx.x * n;
    const T largest = row_max(x, n, shared);
    T total = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) total += exp(x[i] - largest);
    total = whole_sum(total, shared);
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) out[i] = exp(x[i] - largest) / total;
}

// As in NumPy a negative label counts from the end; one outside of the row gives nan.
__device__ inline i64 counted(i64 label, i64 n) {
    if (label < 0) label += n;
    return label < 0 || label >= n ? -1 : label;
}

// -log softmax(x)[label] of each row, and its gradient times dy.
extern "C" __global__ void cross_entropy(T *out, const T *x, const i64 *labels, i64 n) {
    __shared__ T shared[32];
    x += blockIdx.x * n;
    const T largest = row_max(x, n, shared);
    T total = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) total += exp(x[i] - largest);
    total = whole_sum(total, shared);
    const i64 label = counted(labels[blockIdx.x], n);
    if (threadIdx.x == 0)
        out[blockIdx.x] = label < 0 ? T(0) / T(0) : log(total) - (x[label] - largest);
}

extern "C" __global__ void cross_entropy_grad(T *out, const T *dy, const T *x, const i64 *labels,
                                              i64 n) {
    __shared__ T shared[32];
    x += blockIdx.x * n;
    out += blockIdx.x * n;
    const T largest = row_max(x, n, shared), weight = dy[blockIdx.x];
    const i64 label = counted(labels[blockIdx.x], n);
    T total = label < 0 ? T(0) / T(0) : T(0);
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) total += exp(x[i] - largest);
    total = whole_sum(total, shared);
    for (i64 i = threadIdx.x; i < n; i += blockDim.x)
        out[i] = (exp(x[i] - largest) / total - (i == label ? T(1) : T(0))) * weight;
}

// (x - mean) / sqrt(variance + epsilon) of each row, and the cotangent of that.
extern "C" __global__ void standardize(T *out, const T *x, i64 n, T epsilon) {
    __shared__ T shared[32];
    x += blockIdx.x * n;
    out += blockIdx.x * n;
    T total = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) total += x[i];
    const T mean = whole_sum(total, shared) / n;
    total = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) total += (x[i] - mean) * (x[i] - mean);
    const T scale = 1 / sqrt(whole_sum(total, shared) / n + epsilon);
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) out[i] = (x[i] - mean) * scale;
}

extern "C" __global__ void standardize_grad(T *out, const T *dy, const T *x, i64 n, T epsilon) {
    __shared__ T shared[32];
    dy += blockIdx.x * n;
    x += blockIdx.x * n;
    out += blockIdx.x * n;
    T total = 0, sum_dy = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        total += x[i];
        sum_dy += dy[i];
    }
    const T mean = whole_sum(total, shared) / n, mean_dy = whole_sum(sum_dy, shared) / n;
    total = 0;
    T along = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        total += (x[i] - mean) * (x[i] - mean);
        along += dy[i] * (x[i] - mean);
    }
    const T scale = 1 / sqrt(whole_sum(total, shared) / n + epsilon);
    along = whole_sum(along, shared) * scale / n;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x)
        out[i] = (dy[i] - mean_dy - (x[i] - mean) * scale * along) * scale;
}

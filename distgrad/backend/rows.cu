// Rows that are put together by their index. T is float, double or a whole number of 64 bits: the host
// puts the typedef in front. No atomics: rows are taken in their order, the same bits every time.

typedef long long i64;

struct Sum {
    static __device__ T of(T total, T value) { return total + value; }
};
struct Largest {  // one that is not a number stays visible
    static __device__ T of(T most, T value) { return value > most || value != value ? value : most; }
};
struct Smallest {
    static __device__ T of(T least, T value) {
        return value < least || value != value ? value : least;
    }
};

// A block makes up to blockDim.x columns of one of the `rows` of the result, from those of x or from
// zeros. It goes through all indices: a blockful at a time, of which it keeps those of its row, in
// their order.
template <class Taken>
__device__ inline void whole_rows(T *out, const T *x, const T *g, const i64 *indices, i64 count,
                                  i64 width, i64 rows) {
    __shared__ int mine[256], found[8];
    const i64 self = blockIdx.x % rows, column = blockIdx.x / rows * blockDim.x + threadIdx.x;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const bool here = column < width;
    T total = x && here ? x[self * width + column] : T(0);
    for (i64 first = 0; first < count; first += blockDim.x) {
        const i64 at = first + threadIdx.x;
        const i64 index = at < count ? indices[at] : -1;
        const bool hit = at < count && (index < 0 ? index + rows : index) == self;
        const unsigned int hits = __ballot_sync(~0u, hit);
        if (lane == 0) found[warp] = __popc(hits);
        __syncthreads();
        int before = 0, all = 0;
        for (int i = 0; i < 8; i++) {
            before += i < warp ? found[i] : 0;
            all += found[i];
        }
        if (hit) mine[before + __popc(hits & ((1u << lane) - 1))] = threadIdx.x;
        __syncthreads();
#pragma unroll 4
        for (int i = 0; i < all; i++)
            if (here) total = Taken::of(total, g[(first + mine[i]) * width + column]);
        __syncthreads();
    }
    if (here) out[self * width + column] = total;
}

extern "C" __global__ void add_rows(T *out, const T *g, const i64 *indices, i64 count, i64 width,
                                    i64 rows) {
    whole_rows<Sum>(out, (const T *)0, g, indices, count, width, rows);
}

extern "C" __global__ void largest_rows(T *out, const T *x, const T *g, const i64 *indices, i64 count,
                                        i64 width, i64 rows) {
    whole_rows<Largest>(out, x, g, indices, count, width, rows);
}

extern "C" __global__ void smallest_rows(T *out, const T *x, const T *g, const i64 *indices,
                                         i64 count, i64 width, i64 rows) {
    whole_rows<Smallest>(out, x, g, indices, count, width, rows);
}

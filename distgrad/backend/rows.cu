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

// A block makes one row of the result, from that of x or from zeros, and goes through all indices.
template <class Taken>
__device__ inline void whole_rows(T *out, const T *x, const T *g, const i64 *indices, i64 count,
                                  i64 width) {
    __shared__ bool mine[256];
    __shared__ bool any;
    const i64 self = blockIdx.x;
    for (i64 column = threadIdx.x; column - threadIdx.x < width; column += blockDim.x) {
        T total = x && column < width ? x[self * width + column] : T(0);
        for (i64 first = 0; first < count; first += blockDim.x) {
            const i64 at = first + threadIdx.x;
            const i64 index = at < count ? indices[at] : -1;
            mine[threadIdx.x] = at < count && (index < 0 ? index + gridDim.x : index) == self;
            if (threadIdx.x == 0) any = false;
            __syncthreads();
            if (mine[threadIdx.x]) any = true;
            __syncthreads();
            for (int i = 0; any && column < width && i < (int)blockDim.x; i++)
                if (mine[i]) total = Taken::of(total, g[(first + i) * width + column]);
            __syncthreads();
        }
        if (column < width) out[self * width + column] = total;
    }
}

extern "C" __global__ void add_rows(T *out, const T *g, const i64 *indices, i64 count, i64 width) {
    whole_rows<Sum>(out, (const T *)0, g, indices, count, width);
}

extern "C" __global__ void largest_rows(T *out, const T *x, const T *g, const i64 *indices, i64 count,
                                        i64 width) {
    whole_rows<Largest>(out, x, g, indices, count, width);
}

extern "C" __global__ void smallest_rows(T *out, const T *x, const T *g, const i64 *indices,
                                         i64 count, i64 width) {
    whole_rows<Smallest>(out, x, g, indices, count, width);
}

// Rows that are put together by their index. T is float, double or a whole number of 64 bits: the host
// puts the typedef in front. Rows are taken in their order, the same bits every time: atomics only count.

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

// Lists of who belongs to a row, for where asking all indices for every row takes longer. They lie in
// one array: how long each is, and after the last all of them; where each ends; and one after another.

__device__ inline i64 row_of(const i64 *indices, i64 at, i64 count, i64 rows) {
    const i64 index = at < count ? indices[at] : rows;
    return index < 0 ? index + rows : index;
}

extern "C" __global__ void clear_lists(int *lists, i64 rows) {
    const i64 row = blockIdx.x * (i64)blockDim.x + threadIdx.x;
    if (row <= rows) lists[row] = 0;
}

extern "C" __global__ void measure_lists(int *lists, const i64 *indices, i64 count, i64 rows) {
    const i64 row = row_of(indices, blockIdx.x * (i64)blockDim.x + threadIdx.x, count, rows);
    if (row >= 0 && row < rows) atomicAdd(&lists[row], 1);
}

extern "C" __global__ void begin_lists(int *lists, i64 rows) {
    const i64 row = blockIdx.x * (i64)blockDim.x + threadIdx.x;
    if (row < rows && lists[row]) lists[rows + 1 + row] = atomicAdd(&lists[rows], lists[row]);
}

// In any order: who reads a list sorts it.
extern "C" __global__ void fill_lists(int *lists, const i64 *indices, i64 count, i64 rows) {
    const i64 at = blockIdx.x * (i64)blockDim.x + threadIdx.x;
    const i64 row = row_of(indices, at, count, rows);
    int *ends = lists + rows + 1;
    if (row >= 0 && row < rows) lists[2 * rows + 1 + atomicAdd(&ends[row], 1)] = (int)at;
}

const int LONGEST = 1024;

template <class Taken>
__device__ inline T all_of(T total, const T *g, const int *members, int count, i64 width) {
#pragma unroll 16
    for (int i = 0; i < count; i++) total = Taken::of(total, g[members[i] * width]);
    return total;
}

// A block makes up to blockDim.x columns of one of the `rows` of the result, from those of x or from
// zeros: of the members of its list, or, where there is none or a long one, it goes through all
// indices: a blockful at a time, of which it keeps those of its row, in their order.
template <class Taken>
__device__ inline void whole_rows(T *out, const T *x, const T *g, const i64 *indices,
                                  const int *lists, i64 count, i64 width, i64 rows) {
    __shared__ int unsorted[LONGEST], mine[LONGEST], found[8];
    const i64 self = blockIdx.x % rows, column = blockIdx.x / rows * blockDim.x + threadIdx.x;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const bool here = column < width;
    T total = x && here ? x[self * width + column] : T(0);
    const int length = lists ? lists[self] : LONGEST + 1;
    if (length <= LONGEST) {
        const int *end = lists + 2 * rows + 1 + lists[rows + 1 + self];
        for (int i = threadIdx.x; i < length; i += blockDim.x) unsorted[i] = end[i - length];
        __syncthreads();
        for (int i = threadIdx.x; i < length; i += blockDim.x) {
            int before = 0;
            for (int j = 0; j < length; j++) before += unsorted[j] < unsorted[i];
            mine[before] = unsorted[i];
        }
        __syncthreads();
        if (here) total = all_of<Taken>(total, g + column, mine, length, width);
    } else {
        for (i64 first = 0; first < count; first += blockDim.x) {
            const bool hit = row_of(indices, first + threadIdx.x, count, rows) == self;
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
            if (here) total = all_of<Taken>(total, g + first * width + column, mine, all, width);
            __syncthreads();
        }
    }
    if (here) out[self * width + column] = total;
}

extern "C" __global__ void add_rows(T *out, const T *g, const i64 *indices, const int *lists,
                                    i64 count, i64 width, i64 rows) {
    whole_rows<Sum>(out, (const T *)0, g, indices, lists, count, width, rows);
}

extern "C" __global__ void largest_rows(T *out, const T *x, const T *g, const i64 *indices,
                                        const int *lists, i64 count, i64 width, i64 rows) {
    whole_rows<Largest>(out, x, g, indices, lists, count, width, rows);
}

extern "C" __global__ void smallest_rows(T *out, const T *x, const T *g, const i64 *indices,
                                         const int *lists, i64 count, i64 width, i64 rows) {
    whole_rows<Smallest>(out, x, g, indices, lists, count, width, rows);
}

// Rows of arrays, by their numbers in the order or as they lie, copied to where they go. A block does
// the chunk that the table has for it (see cuda_rows.py and tables.py).
struct alignas(16) Sixteen {
    i64 at[2];
};

template <class Word>
__device__ inline void pick(const i64 *row, i64 from, i64 chunk, const i64 *order, i64 start) {
    Word *place = (Word *)row[0];
    const Word *source = (const Word *)row[1];
    const unsigned int words = (unsigned int)row[4];
    const i64 end = from + chunk < row[5] ? from + chunk : row[5];
    for (unsigned int i = (unsigned int)from + threadIdx.x; i < end; i += blockDim.x) {
        const i64 at = start + row[3] + i / words;
        place[i] = source[(order ? order[at] : at) * words + i % words];
    }
}

extern "C" __global__ void pick_rows(const i64 *table, i64 parts, i64 chunk, const i64 *order,
                                     i64 start) {
    const i64 *mine = table + 6 * parts + 2 * (i64)blockIdx.x, *row = table + 6 * mine[0];
    if (row[2] == 16) pick<Sixteen>(row, mine[1], chunk, order, start);
    if (row[2] == 4) pick<unsigned int>(row, mine[1], chunk, order, start);
    if (row[2] == 1) pick<char>(row, mine[1], chunk, order, start);
}

// Runs CUDA kernels on the CPU, for tests: the threads of a block are fibers that take turns at
// __syncthreads(), or run one after the other where they never meet there. So do blocks.
// It is read once for each library: of C++'s headers, which are long, there are only short ones.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <type_traits>
#include <utility>
#include <setjmp.h>
#include <ucontext.h>

using namespace std;

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct Place { unsigned x = 0, y = 0, z = 0; };
static Place threadIdx, blockIdx, blockDim, gridDim;

// What compilers for GPUs are told of pointers.
#define __builtin_assume(fact)

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}

// A fiber is entered by its context once, and lives on for the blocks that follow: jumps, which ask
// nothing of the system, do the rest.
// Its stack stays unwritten where it is not used: a library for each program of a test session would
// hold 64 MB otherwise.
struct Fiber { ucontext_t context; jmp_buf place; void *stack; bool begun, done; };
static const size_t STACK = 1 << 16;
static Fiber fibers[1024];
static ucontext_t scheduler;
static jmp_buf scheduler_place;
static unsigned running;
static void (*body)();

static inline void __syncthreads() {
    const unsigned self = running;
    if (!_setjmp(fibers[self].place)) _longjmp(scheduler_place, 1);
    threadIdx.x = self;
}

// The lanes of a warp come by here together; that others may be elsewhere does no harm.
template <class A> static inline A __shfl_sync(unsigned, A value, int lane) {
    static A given[1024];
    given[threadIdx.x] = value;
    __syncthreads();
    const A taken = given[threadIdx.x / 32 * 32 + lane];
    __syncthreads();
    return taken;
}

template <class A> static inline A __shfl_xor_sync(unsigned mask, A value, int lanes) {
    return __shfl_sync(mask, value, threadIdx.x % 32 ^ lanes);
}

static inline unsigned __ballot_sync(unsigned, bool vote) {
    static bool given[1024];
    given[threadIdx.x] = vote;
    __syncthreads();
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; i++) votes |= (unsigned)given[threadIdx.x / 32 * 32 + i] << i;
    __syncthreads();
    return votes;
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }

// Blocks follow each other here.
static inline void __threadfence() {}
static inline int atomicAdd(int *to, int more) {
    const int before = *to;
    *to += more;
    return before;
}
static inline unsigned atomicInc(unsigned *to, unsigned most) {
    const unsigned before = *to;
    *to = before >= most ? 0 : before + 1;
    return before;
}

static void begin() {
    const unsigned self = running;
    for (;;) {
        threadIdx.x = self;
        body();
        fibers[self].done = true;
        if (!_setjmp(fibers[self].place)) _longjmp(scheduler_place, 1);
    }
}

static void run_block(unsigned threads) {
    for (unsigned i = 0; i < threads; i++) {
        Fiber &fiber = fibers[i];
        fiber.done = false;
        if (fiber.stack) continue;
        fiber.stack = malloc(STACK);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, begin, 0);
    }
    for (volatile bool left = true; left;) {  // what is volatile outlives a jump
        left = false;
        for (volatile unsigned i = 0; i < threads; i++) {
            if (fibers[i].done) continue;
            running = i;
            if (!_setjmp(scheduler_place)) {
                if (fibers[i].begun) _longjmp(fibers[i].place, 1);
                fibers[i].begun = true;
                swapcontext(&scheduler, &fibers[i].context);
            }
            left = left || !fibers[running].done;
        }
    }
}

template <class... A> struct Launch {
    static void (*kernel)(A...);
    static void **given;
    template <size_t... I> static void call(index_sequence<I...>) {
        kernel(*(remove_reference_t<A> *)given[I]...);
    }
    static void once() { call(index_sequence_for<A...>{}); }
};
template <class... A> void (*Launch<A...>::kernel)(A...);
template <class... A> void **Launch<A...>::given;

template <class... A>
static void launch(void (*kernel)(A...), void **given, unsigned blocks, unsigned threads,
                   bool meet) {
    Launch<A...>::kernel = kernel;
    Launch<A...>::given = given;
    body = Launch<A...>::once;
    blockDim.x = threads;
    gridDim.x = blocks;
    for (unsigned i = blocks; i--;) {  // no kernel may count on an order
        blockIdx.x = i;
        if (meet) {
            run_block(threads);
            continue;
        }
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) body();
    }
}

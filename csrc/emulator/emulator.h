/* As much of CUDA as the kernels use, for g++: the same .cu files run on a CPU, to be tested there.
 *
 * Every CUDA thread is a fiber. The blocks of a launch run one after another, the threads of a block in turns, until
 * they end or wait: at __syncthreads, __syncwarp and the shuffles they really wait for each other. A seed decides the
 * order of threads and blocks. Shared memory starts as NaN in every block. A barrier that not all threads reach ends
 * the process with kernel, block and line.
 *
 * It can't tell what nvcc makes of the code, how fast that is, or whether accesses coalesce. */
#ifndef TINYGEN_EMULATOR_H
#define TINYGEN_EMULATOR_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __forceinline__ inline

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

static inline int min(int a, int b) { return a < b ? a : b; }

namespace emulator {

/* Of the thread that runs. */
struct place { dim3 thread, block, threads, blocks; };
extern place here;

void run_blocks(const char *kernel, dim3 blocks, dim3 threads, void (*body)(void *), void *context);
void barrier(const char *file, int line);
void warp_barrier(unsigned mask, const char *file, int line);
uint64_t exchange(unsigned mask, uint64_t value, int lane, const char *file, int line);
void *shared(const void *site, size_t bytes);
int lane();

template <class... parameters>
struct call {
    void (*kernel)(parameters...);
    std::tuple<parameters...> arguments;
    static void run(void *c) { std::apply(((call *)c)->kernel, ((call *)c)->arguments); }
};

template <class... parameters, class... values>
void launch(const char *name, dim3 blocks, dim3 threads, void (*kernel)(parameters...), values... v)
{
    call<parameters...> c = {kernel, {v...}};
    run_blocks(name, blocks, threads, c.run, &c);
}

/* The value that the thread of lane `from` gives. */
template <class type>
type shuffle(unsigned mask, type value, int from, const char *file, int line)
{
    static_assert(sizeof(type) <= 8, "shuffles exchange up to 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, from, file, line);
    memcpy(&value, &bits, sizeof value);
    return value;
}

}

#define threadIdx (emulator::here.thread)
#define blockIdx (emulator::here.block)
#define blockDim (emulator::here.threads)
#define gridDim (emulator::here.blocks)
#define __syncthreads() emulator::barrier(__FILE__, __LINE__)
#define __syncwarp() emulator::warp_barrier(~0u, __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, bits) \
    emulator::shuffle(mask, value, emulator::lane() ^ (bits), __FILE__, __LINE__)
#define LAUNCH(kernel, blocks, threads, ...) \
    emulator::launch(#kernel, blocks, threads, kernel, __VA_ARGS__)
#define SHARED(type, name, dimensions)          \
    typedef type name##_type dimensions;        \
    static char name##_site;                     \
    name##_type &name = *(name##_type *)emulator::shared(&name##_site, sizeof(name##_type))

/* --- the runtime's calls, on the CPU's memory ------------------------------------------------------------- */

typedef void *cudaStream_t;
typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9 };

cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void *p, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int *count);
const char *cudaGetErrorString(cudaError_t error);

#endif

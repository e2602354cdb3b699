/* The stream, scratch memory and errors of the CUDA kernels. */
#include "cuda.cuh"

static thread_local cudaStream_t current;
static thread_local int64_t until_failure;

cudaStream_t cuda_stream() { return current; }

int launched()
{
    cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? (int)TG_OK : TG_CUDA + (int)error;
}

scratch_memory::scratch_memory(int64_t bytes) : p(NULL)
{
    bool fails = until_failure > 0 && --until_failure == 0;
    if (fails || cudaMallocAsync(&p, (size_t)max64(bytes, 1), current) != cudaSuccess) {
        p = NULL;
        cudaGetLastError();                             /* or the next launch would report this error, too */
    }
}

scratch_memory::~scratch_memory()
{
    if (p)
        cudaFreeAsync(p, current);
}

int tg_cuda_stream(void *stream)
{
    current = (cudaStream_t)stream;
    return TG_OK;
}

int tg_cuda_devices(int *count)
{
    *count = 0;
    cudaError_t error = cudaGetDeviceCount(count);
    cudaGetLastError();
    return error == cudaSuccess ? (int)TG_OK : TG_CUDA + (int)error;
}

const char *tg_cuda_error(int result)
{
    return cudaGetErrorString((cudaError_t)(result < TG_CUDA ? 0 : result - TG_CUDA));
}

void tg_fail_allocation(int64_t n) { until_failure = n; }

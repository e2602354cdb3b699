/* What the CUDA library has besides the kernels of tinygen.h, which it exports under the same names. Their arrays are
 * in device memory, `threads` is ignored, and a call returns before its work is done: that is queued on the calling
 * thread's stream. So what arrays contain can't be checked: a label that is no class makes a NaN, logits from which
 * nothing can be drawn give level 0, and a sampler's tables are trusted. Convolutions and LSTMs take up to 2^30 pixels,
 * and as many taps times channels. */
#ifndef TINYGEN_CUDA_H
#define TINYGEN_CUDA_H
#ifdef __cplusplus
#pragma GCC visibility push(default)  /* the CUDA library exports what is declared here, and no more */
extern "C" {
#endif

/* A result from here on is TG_CUDA + CUDA's own error code: 1035 no driver or one that is too old, 1100 no GPU, 1209 a
 * GPU of an architecture that the library wasn't built for. */
enum { TG_CUDA = 1000 };

/* Sets the stream (a cudaStream_t) of the calling thread's kernels. NULL is the default stream, which is used before
 * the first call. */
int tg_cuda_stream(void *stream);

/* How many GPUs there are. */
int tg_cuda_devices(int *count);

/* CUDA's own sentence for a result. */
const char *tg_cuda_error(int result);

#ifdef __cplusplus
}
#pragma GCC visibility pop
#endif
#endif

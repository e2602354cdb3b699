/* One instruction set, both element types; see variants.h. */
#define real float
#define integer uint32_t
#define SUFFIX f32
#include "vector.inc"
#include FAMILY
#undef real
#undef integer
#undef SUFFIX
#define real double
#define integer uint64_t
#define SUFFIX f64
#include "vector.inc"
#include FAMILY
#undef real
#undef integer
#undef SUFFIX
#undef ISA
#undef VECTOR
#undef PANEL

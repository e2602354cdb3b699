/* One instruction set, both element types; see variants.h. */
#define real float
#define SUFFIX f32
#include FAMILY
#undef real
#undef SUFFIX
#define real double
#define SUFFIX f64
#include FAMILY
#undef real
#undef SUFFIX
#undef ISA
#undef VECTOR
#undef PANEL

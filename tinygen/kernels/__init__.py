"""The one place that calls kernels: arrays in, a kernel of csrc/ on their memory, arrays out.

Every function here takes and returns arrays in PyTorch's shapes, hands their memory to a kernel as it is, and answers
NotImplemented where there is no kernel: for other dtypes, and everywhere if the library wasn't built. The caller has
checked what is particular to it; here all that could make a kernel leave its arrays is checked.

    library     the library: whether it is there, its threads and instruction sets, calling a kernel
    layout      the order in memory that kernels take
    affine attention cat conv elementwise rows recurrent sample optim    the kernels, by the C file that has them
"""

from tinygen.kernels import affine, attention, cat, conv, elementwise, optim, recurrent, rows, sample
from tinygen.kernels.layout import conversions
from tinygen.kernels.library import ISAS, available, get_num_threads, instruction_set, isa, set_num_threads

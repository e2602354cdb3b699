"""What `@op` gives, for type checkers: a function with the op's own arguments."""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, overload

from tinygen._tensor import Tensor

P = ParamSpec("P")

class Function(Protocol[P]):
    """An op on Tensors. (On plain arrays it gives plain arrays.)"""

    __name__: str
    op: Any
    vjp: Callable[..., Callable[[Any], Any]]
    kernel: Callable[..., Any]
    samples: Callable[[Any], Any]
    flops: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...

@overload
def op(body: Callable[P, Any]) -> Function[P]: ...
@overload
def op(*, outputs: Sequence[str]) -> Any: ...
@overload
def op(*, view: bool = ..., casts: bool = ...) -> Callable[[Callable[P, Any]], Function[P]]: ...

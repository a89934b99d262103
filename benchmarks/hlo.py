"""FLOPs of the matrix products in an XLA program, read off its text (HLO).

`tf.profiler` and the cost analyses of XLA either leave einsums out or add elementwise work; the dots of the program
itself are what a matmul count can be compared with exactly. Optimised and unoptimised text are both understood.

Source: https://openxla.org/xla/operation_semantics#dot
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

_HEAD = re.compile(r"\s*(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) (?:\(.*\) -> .*)?\{\s*$")
_INSTRUCTION = re.compile(
    r"\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<shape>\(.*?\)|[\w]+\[[\d,]*\]\S*) (?P<op>[\w-]+)\((?P<rest>.*)$"
)
_SHAPE = re.compile(r"\w+\[(?P<sizes>[\d,]*)\]")
_OPERAND = re.compile(r"(?:\w+\[(?P<sizes>[\d,]*)\]\S* )?%?(?P<name>[\w.-]+)")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{(?P<axes>[\d,]*)\}")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|(?:true|false)_computation)=%?([\w.-]+)|_computations=\{(.*?)\}"
)
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_MAY_MULTIPLY = re.compile(r"gemm|matmul|dot|conv|triton", re.IGNORECASE)


@dataclass
class _Computation:
    dots: list[int] = field(default_factory=list)  # FLOPs of each
    called: list[tuple[str, str]] = field(default_factory=list)  # operation, name of the computation


def dot_flops(text: str) -> int:
    """FLOPs of all dots that a run of the program executes; a multiply-add counts as 2.

    A dot over one term has nothing to add and counts as 1. A computation that is called twice counts twice.

    Args:
        text: HLO of a module, as `tf.function(...).experimental_get_compiler_ir(...)(stage="hlo")` gives it.

    Raises:
        ValueError: the text is no HLO module, or has matrix products that cannot be counted: convolutions, calls of a
            library, dots in a loop or under a condition.

    >>> dot_flops('''
    ... ENTRY %main (x: f32[5,3], y: f32[3,4]) -> f32[5,4] {
    ...   %x = f32[5,3]{1,0} parameter(0)
    ...   %y = f32[3,4]{1,0} parameter(1)
    ...   ROOT %dot = f32[5,4]{1,0} dot(%x, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
    ... }''')
    120
    """
    computations, entry = _computations(text)

    @cache
    def total(name: str) -> int:
        computation = computations[name]
        flops = sum(computation.dots)
        for op, called in computation.called:
            inside = total(called)
            if inside and op in ("while", "conditional"):
                raise ValueError(f"{called!r} has dots inside a {op}; how often they run cannot be read off the text.")
            flops += inside
        return flops

    return total(entry)


def _computations(text: str) -> tuple[dict[str, _Computation], str]:
    """The computations of a module by name, and the name of the one where it starts."""
    found, entry, shapes = {}, None, {}
    current = _Computation()
    for line in text.splitlines():
        if instruction := _INSTRUCTION.match(line):
            shapes[instruction["name"]] = _sizes(instruction["shape"])
            _add(current, instruction, shapes)
        elif head := _HEAD.match(line):
            current, shapes = _Computation(), {}
            found[head["name"]] = current
            entry = head["name"] if head["entry"] else entry
        elif " dot(" in line:  # rather no count than one that is too small
            raise ValueError(f"a dot that cannot be read: {line.strip()[:100]!r}.")
    if entry is None:
        raise ValueError(f"an HLO module has an ENTRY computation, got text that begins {text[:60]!r}.")
    return found, entry


def _add(computation: _Computation, instruction: re.Match, shapes: dict[str, tuple[int, ...]]) -> None:
    """Note what the instruction multiplies or calls."""
    op, rest = instruction["op"], instruction["rest"]
    if op == "dot":
        computation.dots.append(_flops(shapes[instruction["name"]], rest, shapes))
    target = _TARGET.search(rest)
    if op == "convolution" or (target and _MAY_MULTIPLY.search(target[1])):
        raise ValueError(
            f"{instruction['name']!r} is a {target[1] if target else op}, and only dots are counted; "
            "compile the program for a CPU, or take the text before optimisation."
        )
    computation.called += [(op, name) for name in _called(rest)]


def _called(rest: str) -> Iterator[str]:
    for one, several in _CALLED.findall(rest):
        yield from re.findall(r"[\w.-]+", one or several)


def _flops(result: tuple[int, ...], rest: str, shapes: dict[str, tuple[int, ...]]) -> int:
    """FLOPs of a dot with that result; `rest` starts with its left operand, with or without its shape."""
    left = _OPERAND.match(rest)
    sizes = shapes[left["name"]] if left["sizes"] is None else _sizes(rest)
    contracted = _CONTRACTED.search(rest)
    summed = math.prod(sizes[int(axis)] for axis in contracted["axes"].split(",") if axis) if contracted else 1
    return math.prod(result) * (2 * summed if summed > 1 else 1)


def _sizes(shape: str) -> tuple[int, ...]:
    """Sizes of the first array in a shape, e.g. `f32[5,3]{1,0}`."""
    match = _SHAPE.search(shape)
    return tuple(int(size) for size in match["sizes"].split(",") if size) if match else ()

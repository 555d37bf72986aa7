"""What compiled code does, apart from how its source is laid out."""

import dis
import inspect
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Final

_FLAGS: Final = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
_ABOUT_SOURCE: Final = ("__doc__", "__firstlineno__", "__static_attributes__")
_READS: Final = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
_LOADS: Final = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF")
_CHANGING: Final = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove"}
    | {"setdefault", "update", "write"}
)


# The compiler that made all code of this process.
BYTECODE: Final = sys.implementation.cache_tag or sys.version


@dataclass(frozen=True)
class Usage:
    """What code does with names, as far as that can be seen.

    Assignments are seen, and calls such as `append` and assignments to items of what was loaded just before; a list
    that is handed on and changed elsewhere is not seen. What code changes while it runs is a record of what happened,
    not a setting.

    Attributes:
        globals: Names that it looks up among the globals.
        attributes: Attributes that it reads, of whatever object.
        changed_names: Globals, and names of enclosing functions, that it assigns to, or whose items it changes.
        changed_attributes: The same of attributes, of whatever object.
    """

    globals: frozenset[str]
    attributes: frozenset[str]
    changed_names: frozenset[str]
    changed_attributes: frozenset[str]


def list_operations(code: CodeType) -> list[object]:
    """Returns what a code object does, as a list of numbers, texts, constants and code objects.

    Constants and names stand where they are used, and jumps count operations. So docstrings, comments, line numbers,
    unused constants and the names of locals do not show; names of arguments do. Code that runs often is specialised by
    the interpreter, which does not show either.
    """
    num_arguments = code.co_argcount + code.co_kwonlyargcount
    num_arguments += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    signature = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS]
    instructions = list(dis.get_instructions(code))
    ordinals: dict[int, int] = {}
    kept: list[dis.Instruction] = []
    for instruction in instructions:
        ordinals[instruction.offset] = len(kept)
        if instruction.opname in {"NOP", "EXTENDED_ARG"}:  # lines without code; what dis has put into the next one
            continue
        if instruction.opname == "STORE_NAME" and instruction.argval in _ABOUT_SOURCE:
            kept.pop()
            continue
        kept.append(instruction)
    handlers = [
        [ordinals.get(offset, len(kept)) for offset in (entry.start, entry.end, entry.target)] + [entry.depth]
        for entry in dis.Bytecode(code).exception_entries  # type: ignore[attr-defined] # typeshed lacks it
    ]
    operations = [[instruction.opname, _find_operand(instruction, ordinals)] for instruction in kept]
    return [signature, list(code.co_varnames[:num_arguments]), operations, handlers]


def find_usage(*codes: CodeType) -> Usage:
    """Returns what code objects, and those inside them, do with names."""
    found, read, names, attributes = set[str](), set[str](), set[str](), set[str]()
    for code in itertools.chain.from_iterable(map(_walk, codes)):
        instructions = list(dis.get_instructions(code))
        for place, instruction in enumerate(instructions):
            name = instruction.argval
            if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
                found.add(name)
            elif instruction.opname in _READS:
                read.add(name)
            elif instruction.opname == "STORE_ATTR":
                attributes.add(name)
            elif instruction.opname == "STORE_GLOBAL" or (
                instruction.opname == "STORE_DEREF" and name in code.co_freevars
            ):
                names.add(name)
            owner = _find_changed_owner(instructions, place)
            if owner is not None and owner.opname in _LOADS:
                names.add(owner.argval)
            elif owner is not None and owner.opname in _READS:
                attributes.add(owner.argval)
    return Usage(frozenset(found), frozenset(read), frozenset(names), frozenset(attributes))


def find_usage_of_method(owner: type, function: object) -> Usage:
    """Returns what a method does with names, and the other methods that it may call.

    Args:
        owner: A class. Each method of it counts whose name the method reads, or one that counts already.
        function: The method; what has no Python code does nothing.
    """
    codes = dict.fromkeys([function.__code__] if isinstance(function, FunctionType) else [])
    usage = find_usage(*codes)
    while True:
        reached = [vars(base).get(name) for base in owner.__mro__ for name in sorted(usage.attributes)]
        codes.update(dict.fromkeys(method.__code__ for method in reached if isinstance(method, FunctionType)))
        wider = find_usage(*codes)
        if wider == usage:
            return usage
        usage = wider


def _find_changed_owner(instructions: Sequence[dis.Instruction], place: int) -> dis.Instruction | None:
    """Returns the instruction that loaded what an instruction changes; None where it changes nothing."""
    instruction = instructions[place]
    if instruction.opname in _READS and instruction.argval in _CHANGING:
        back = 1
    elif instruction.opname in {"STORE_SUBSCR", "DELETE_SUBSCR"}:  # owner, key
        back = 2
    elif instruction.opname == "COPY" and instructions[place - 1].opname == "COPY":  # owner, key, for owner[key] += 1
        back = 3
    else:
        return None
    return instructions[place - back] if place >= back else None


def _walk(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _walk(constant)


def _find_operand(instruction: dis.Instruction, ordinals: dict[int, int]) -> object:
    opcode = instruction.opcode
    if opcode in dis.hasjrel or opcode in dis.hasjabs:
        return ordinals[instruction.argval]
    if opcode in dis.hasconst or opcode in dis.hasname or opcode in dis.hasfree:
        return instruction.argval
    return instruction.arg

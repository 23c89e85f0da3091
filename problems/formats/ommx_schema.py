"""The messages of ``ommx.v1`` that describe an instance, for Google's protobuf library.

Declared here, since OMMX's own package requires versions of protobuf and pandas with which
OR-Tools can't be installed. Field numbers and types are those of OMMX 2 (format version 0).
"""

from __future__ import annotations

from functools import cache
from typing import Any

#: Name, number and type of each field; ``*`` before a type for a repeated field, ``?`` for one
#: whose presence counts, ``|`` for one of the alternatives ``function``.
_MESSAGES: dict[str, str] = {
    "Linear.Term": "1 id uint64, 2 coefficient double",
    "Linear": "1 terms *Linear.Term, 2 constant double",
    "Quadratic": "1 rows *uint64, 2 columns *uint64, 3 values *double, 4 linear ?Linear",
    "Monomial": "1 ids *uint64, 2 coefficient double",
    "Polynomial": "1 terms *Monomial",
    "Function": (
        "1 constant |double, 2 linear |Linear, 3 quadratic |Quadratic, 4 polynomial |Polynomial, "
        "5 expression |bytes"
    ),
    "Bound": "1 lower double, 2 upper double",
    "Entry": "1 key string, 2 value string",
    "DecisionVariable": (
        "1 id uint64, 2 kind int32, 3 bound ?Bound, 4 name ?string, 5 subscripts *int64, "
        "6 parameters *Entry, 7 description ?string, 8 substituted_value ?double"
    ),
    "Constraint": (
        "1 id uint64, 2 equality int32, 3 function Function, 5 parameters *Entry, 6 name ?string, "
        "7 description ?string, 8 subscripts *int64"
    ),
    "Instance": (
        "1 description bytes, 2 decision_variables *DecisionVariable, 3 objective ?Function, "
        "4 constraints *Constraint, 5 sense int32, 6 parameters bytes, 7 constraint_hints bytes, "
        "8 removed_constraints *bytes, 9 decision_variable_dependency *bytes, "
        "10 named_functions *bytes, 11 annotations *bytes, 100 format_version uint32"
    ),
}

BINARY, INTEGER = 1, 2
"""Kinds of a decision variable."""
EQUAL_TO_ZERO = 1
"""``equality`` of a constraint."""
MINIMIZE, MAXIMIZE = 1, 2
"""Senses of an instance; 0 is read as the first."""


@cache
def message_class(name: str) -> Any:
    """Return the class of a message, such as ``"Instance"``."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(_pool().FindMessageTypeByName(f"icbs.ommx.v1.{_flat(name)}"))


@cache
def _pool() -> Any:
    """Return a pool of its own, so that OMMX's package may be loaded as well."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool

    file = FileDescriptorProto(name="icbs/ommx.proto", package="icbs.ommx.v1", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=_flat(name))
        if "|" in fields:
            message.oneof_decl.add(name="function")
        for number, title, kind in (field.split() for field in fields.split(", ")):
            field = message.field.add(name=title, number=int(number))
            field.label = Field.LABEL_REPEATED if kind[0] == "*" else Field.LABEL_OPTIONAL
            if kind[0] == "|":
                field.oneof_index = 0
            elif kind[0] == "?":
                field.proto3_optional = True
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{title}")
            plain = kind.lstrip("*?|")
            if plain in _MESSAGES:
                field.type = Field.TYPE_MESSAGE
                field.type_name = f".icbs.ommx.v1.{_flat(plain)}"
            else:
                field.type = getattr(Field, f"TYPE_{plain.upper()}")
    pool = DescriptorPool()
    pool.Add(file)
    return pool


def _flat(name: str) -> str:
    """Nested messages are declared at the top level: names are not part of the encoding."""
    return name.replace(".", "")

"""JSON Schema 2020-12 validators: compiled once, and unable to fetch anything.

The jsonschema package costs 30 ms to import, so it is imported on first use: a server lists its tools without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from praxis_mcp.contracts.schemas.formats import CHECKS
from praxis_mcp.contracts.schemas.patterns import unusable_patterns
from praxis_mcp.contracts.vocabulary import is_plainly_valid, without_booleans
from praxis_mcp.errors import ContractError

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

MOST_PROBLEMS = 20
"""Problems that one check reports; an array of a million wrong items is no reason for a million sentences."""

PATTERN_REMEDY = "Write it without, put a backslash before what is meant literally, or leave the check to the tool."


class CheckFailed(Exception):
    """A value is too deep or too large, or a number in it is, for it to be checked at all."""


def schema_errors(schema: Any) -> Iterator[ValidationError]:
    """What is wrong with a schema itself, by the metaschema of the 2020-12 dialect; patterns are left to
    `unusable_patterns`: Python's engine never sees them."""
    if is_plainly_valid(schema):
        return
    from jsonschema import Draft202012Validator

    yield from Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema)


def compile_schema(schema: Mapping[str, Any], owner: str) -> Validator:
    """A validator that checks formats, resolves references inside the schema only, and cannot be kept busy for long.

    Args:
        schema: what values must fit.
        owner: how to name the schema in an error.

    Raises:
        ContractError: it is not a valid schema.
    """
    from referencing import Registry

    from praxis_mcp.contracts.schemas.bounded_checks import BoundedValidator

    error = next(schema_errors(schema), None)
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path) or "its root"
        raise ContractError(
            f"{owner} is not a valid JSON Schema at {place}: {error.message}.",
            remedy="See https://json-schema.org/draft/2020-12.",
        )
    for keys, reason in unusable_patterns(schema):
        place = ".".join(str(part) for part in keys)
        raise ContractError(f"{owner} cannot be used, because of {place}. {reason}.", remedy=PATTERN_REMEDY)
    # jsonschema does not say where a value is that a `false` refuses, and without a registry of its own it fetches what
    # a $ref names from the network.
    return BoundedValidator(without_booleans(schema), registry=Registry(), format_checker=_format_checker())


def find_errors(validator: Validator, value: Any, owner: str) -> list[ValidationError]:
    """The first `MOST_PROBLEMS` errors, in the order of the schema's keywords.

    Raises:
        CheckFailed: the value is too deep or too large, or a number in it is.
        ContractError: the schema refers to something outside itself.
    """
    from referencing.exceptions import Unresolvable

    from praxis_mcp.contracts.schemas.bounded_checks import TookTooLong, bounded

    try:
        with bounded():
            return list(islice(validator.iter_errors(value), MOST_PROBLEMS))
    except TookTooLong as exc:
        raise CheckFailed("takes too long to be checked: it is too large or too deep") from exc
    except (RecursionError, OverflowError) as exc:
        raise CheckFailed("is nested too deeply, or holds a number too large, to be checked") from exc
    except Unresolvable as exc:
        raise ContractError(
            f'{owner} has a $ref to "{exc.ref}", which is not inside it.',
            remedy="Write the definition under $defs, and refer to it as #/$defs/NAME.",
        ) from exc


@functools.cache
def _format_checker() -> FormatChecker:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name, check in CHECKS.items():
        checker.checks(name, raises=ValueError)(_text_only(check))
    return checker


def _text_only(check: Callable[[str], bool]) -> Callable[[object], bool]:
    # A format says nothing about values of other types (JSON Schema 2020-12, validation, section 7.2.1).
    return lambda value: not isinstance(value, str) or check(value)

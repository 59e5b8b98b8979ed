"""The API as the double derives it from the installed SDK, compared with an introspection of a real engine."""

from typing import Any

import pytest

from tests.dagger_double import api, schema
from tests.kit import requirements

DOUBLES = {
    "Query": api.Query,
    "Host": api.Host,
    "Container": api.Container,
    "Directory": api.Directory,
    "File": api.File,
    "Changeset": api.Changeset,
    "Secret": api.Secret,
    "Socket": api.Socket,
    "CacheVolume": api.CacheVolume,
}


@pytest.fixture(scope="module")
def derived() -> Any:
    if schema.generated_client() is None:
        requirements.give_up("dagger", "dagger-io is not installed")
    return schema.load()


@pytest.fixture(scope="module")
def introspected() -> Any:
    if not schema.introspection_file().is_file():
        pytest.skip(f"{schema.introspection_file()} is not there ({schema.VARIABLE})")
    return schema.load_introspection()


def fields(found: Any) -> dict[str, Any]:
    from graphql import GraphQLObjectType

    return {
        f"{kind.name}.{name}": field
        for kind in found.type_map.values()
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("_")
        for name, field in kind.fields.items()
    }


def arguments(field: Any, *, defaults: bool) -> dict[str, Any]:
    return {
        name: (str(argument.type), argument.default_value if defaults else None)
        for name, argument in field.args.items()
    }


def supported() -> set[str]:
    """What the double does."""
    return {
        f"{kind}.{name.removeprefix('do_')}" for kind, it in DOUBLES.items() for name in dir(it) if name[:3] == "do_"
    }


def test_all_that_the_double_does_is_a_field_of_the_api(derived: Any) -> None:
    assert supported() <= fields(derived).keys()


def test_the_api_of_the_sdk_is_that_of_a_real_engine(derived: Any, introspected: Any) -> None:
    ours, theirs = fields(derived), fields(introspected)
    assert theirs.keys() <= ours.keys(), "a newer SDK may have more"
    for name in theirs:
        # Of an object that a field gives, the SDK does not tell whether it may be none.
        assert str(ours[name].type).rstrip("!") == str(theirs[name].type).rstrip("!"), name
        mine, real = (arguments(it[name], defaults=False) for it in (ours, theirs))
        assert {key: mine.get(key) for key in real} == real, name


def test_what_the_double_does_has_the_types_and_defaults_of_a_real_engine(derived: Any, introspected: Any) -> None:
    ours, theirs = fields(derived), fields(introspected)
    for name in supported():
        assert str(ours[name].type) == str(theirs[name].type), name
        assert arguments(ours[name], defaults=True) == arguments(theirs[name], defaults=True), name


def test_values_of_enumerations_and_fields_of_inputs_are_those_of_a_real_engine(
    derived: Any, introspected: Any
) -> None:
    from graphql import GraphQLEnumType, GraphQLInputObjectType

    for kind in introspected.type_map.values():
        if kind.name.startswith("_"):
            continue
        if isinstance(kind, GraphQLEnumType):
            assert kind.values.keys() <= derived.type_map[kind.name].values.keys(), kind.name
        elif isinstance(kind, GraphQLInputObjectType):
            ours = {name: str(field.type) for name, field in derived.type_map[kind.name].fields.items()}
            assert ours == {name: str(field.type) for name, field in kind.fields.items()}, kind.name

"""Operations of an API become contracts of `engine: http`; hostile descriptions cost nothing."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.errors import ArgumentError
from praxis_mcp.importing.foreign import read_foreign
from praxis_mcp.importing.openapi import import_operations
from praxis_mcp.importing.usable import as_file
from tests.kit.command_line import praxis

API = """\
openapi: 3.0.3
info: {title: Tracker, version: "1"}
servers:
  - url: https://{region}.tracker.example/api/v1/
    variables: {region: {default: eu}}
security:
  - bearer: []
paths:
  /projects/{project-id}/issues:
    parameters:
      - $ref: '#/components/parameters/Project'
    get:
      operationId: issues/list-for-project
      tags: [issues]
      summary: List issues
      description: "Lists the issues\\u200b of a project.\\n\\nIn pages."
      parameters:
        - {name: state, in: query, schema: {type: string, enum: [open, closed], default: open}}
        - {name: labels, in: query, schema: {type: array, items: {type: string}}}
        - {name: ids, in: query, explode: false, schema: {type: array, items: {type: integer}}}
        - {name: page, in: query, schema: {type: integer, minimum: 0, exclusiveMinimum: true}}
        - {name: X-Trace-Id, in: header, schema: {type: string}}
        - {name: Authorization, in: header, schema: {type: string}}
        - {name: content-length, in: header, schema: {type: integer}}
        - {name: TE, in: header, schema: {type: string}}
        - {name: session, in: cookie, schema: {type: string}}
      responses:
        "200": {description: ok, content: {application/json: {schema: {type: array, items: {}}}}}
    post:
      operationId: issues/create
      tags: [issues]
      requestBody:
        required: true
        content:
          application/json:
            schema: {$ref: '#/components/schemas/NewIssue'}
      responses:
        201: {description: made, content: {application/json: {schema: {type: object}}}}
  /upload:
    put:
      requestBody: {required: true, content: {application/zip: {schema: {type: string}}}}
      responses: {}
  /token:
    post:
      security: [{key: []}]
      requestBody:
        content:
          application/x-www-form-urlencoded:
            schema: {type: object, required: [grant], properties: {grant: {type: string}}}
      responses: {204: {description: none}}
  /public:
    delete:
      security: []
      responses: {204: {description: none}}
components:
  parameters:
    Project: {name: project-id, in: path, required: true, schema: {type: integer}}
  securitySchemes:
    bearer: {type: http, scheme: bearer}
    key: {type: apiKey, in: header, name: X-Api-Key}
  schemas:
    NewIssue:
      allOf:
        - $ref: '#/components/schemas/Base'
        - type: object
          required: [title]
          properties:
            id: {type: integer, readOnly: true}
            title: {type: string, maxLength: 80, example: It fails}
            due: {type: string, format: date, nullable: true}
            parent: {$ref: '#/components/schemas/Node'}
            who: {oneOf: [{type: string}, {type: integer}]}
    Base: {type: object, properties: {body: {type: string}}}
    Node:
      type: object
      properties: {name: {type: string}, children: {type: array, items: {$ref: '#/components/schemas/Node'}}}
"""


def described() -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load(API))


def contracts(document: Any, **options: Any) -> dict[str, dict[str, Any]]:
    """By name; each loads without errors."""
    found = import_operations(document, **options)
    for tool in found.tools:
        errors = [item for item in load_text(tool.written("a test")).diagnostics if item.is_error]
        assert not errors, errors
    return {tool.name: tool.contract for tool in found.tools}


def test_each_operation_is_a_contract_with_its_parameters_in_their_places() -> None:
    found = contracts(described())
    assert set(found) == {"issues_list-for-project", "issues_create", "post_token", "delete_public"}
    listing = found["issues_list-for-project"]
    assert listing["url"] == "https://eu.tracker.example/api/v1/projects/{project-id}/issues"
    assert listing["description"] == "Lists the issues of a project. In pages."
    assert listing["auth_token"] == {"secret": "EU_TRACKER_EXAMPLE_TOKEN"}
    assert listing["output"] == "json"
    assert listing["annotations"]["read_only"] is True
    parameters = listing["parameters"]
    assert {name: item.get("bind") for name, item in parameters.items()} == {
        "project-id": None,
        "state": {"query": "state"},
        "labels": {"query": "labels", "repeat": True},
        "ids": {"query": "ids"},
        "page": {"query": "page"},
        "X-Trace-Id": {"header": "X-Trace-Id"},
    }
    assert parameters["page"]["exclusiveMinimum"] == 0
    assert parameters["state"]["default"] == "open"
    assert listing["examples"][0]["arguments"] == {"project-id": 1}


def test_a_body_s_members_are_parameters_and_its_schemas_stand_by_themselves() -> None:
    created = contracts(described())["issues_create"]
    parameters = created["parameters"]
    assert set(parameters) == {"project-id", "body", "title", "due", "parent", "who"}
    assert parameters["title"]["bind"] == {"body": "title"}
    assert parameters["due"]["type"] == ["string", "null"]
    assert parameters["due"]["required"] is False
    assert "oneOf" in parameters["who"]
    assert "$ref" not in json.dumps(created)
    form = contracts(described())["post_token"]
    assert form["body"] == "form"
    assert form["headers"] == {"X-Api-Key": {"secret": "EU_TRACKER_EXAMPLE_KEY"}}
    assert "auth_token" not in contracts(described())["delete_public"]


def test_what_is_not_carried_over_is_named() -> None:
    found = import_operations(described())
    assert found.notes[0] == "PUT /upload is left out: its body is application/zip."
    notes = {tool.name: tool.notes for tool in found.tools}["issues_list-for-project"]
    assert any("cookie session" in note for note in notes)
    assert any("header TE" in note for note in notes)
    assert any("pages: page" in note for note in notes)


def test_two_servers_of_one_machine_have_secrets_of_their_own() -> None:
    tokens = {
        contracts(described(), url=f"https://api.example.com:{port}")["issues_list-for-project"]["auth_token"]["secret"]
        for port in (8443, 9443)
    }
    assert tokens == {"API_EXAMPLE_COM_8443_TOKEN", "API_EXAMPLE_COM_9443_TOKEN"}


def test_the_example_of_what_changes_something_is_not_run() -> None:
    found = import_operations(described())
    tested = {tool.name for tool in found.tools if tool.contract["examples"][0].get("run", True)}
    assert tested == {"issues_list-for-project"}
    assert any("say run: false" in note for note in found.notes)
    assert len(import_operations(described(), operations=("GET /projects/{project-id}/issues",)).notes) == 0


@pytest.mark.parametrize(
    ("url", "named"),
    [("http://127.0.0.1:8080", "[127.0.0.1]"), ("http://localhost/v1", "[localhost]"), ("http://[::1]:80", "['::1']")],
)
def test_an_api_on_this_machine_is_imported_with_the_setting_that_it_needs(url: str, named: str) -> None:
    notes = import_operations(described(), url=url).notes
    assert any(f"policy.private_hosts: {named}" in note for note in notes)
    assert not any("private_hosts" in note for note in import_operations(described()).notes)


def test_operations_are_chosen_by_tag_and_by_name() -> None:
    assert set(contracts(described(), tags=("issues",))) == {"issues_list-for-project", "issues_create"}
    assert set(contracts(described(), operations=("DELETE /public", "issues/create"))) == {
        "delete_public",
        "issues_create",
    }
    with pytest.raises(ArgumentError, match="no such operations"):
        import_operations(described(), tags=("nope",))


def test_names_are_valid_and_different() -> None:
    document = described()
    operation = {"operationId": "same name!", "responses": {}}
    document["paths"] = {f"/{index}": {"get": operation} for index in range(3)} | {
        "/x": {"get": {"operationId": "x" * 200}}
    }
    assert set(contracts(document)) == {"same_name", "same_name_2", "same_name_3", "x" * 64}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"openapi": "4.0"}, "2.0, 3.0, 3.1 and 3.2"),
        ({"openapi": None, "swagger": "1.2"}, "2.0, 3.0, 3.1 and 3.2"),
        ({"servers": []}, "names no server"),
        ({"servers": [{"url": "/relative"}]}, "names no server"),
        ({"paths": {}}, "no operations"),
        ({"paths": {"/a": {"$ref": "https://evil.example/x.yaml#/a"}}}, "nothing is fetched"),
        ({"paths": {"/a": {"$ref": "#/nowhere"}}}, "leads nowhere"),
        ({"paths": {"/a": {"$ref": "#/paths/~1a"}}}, "leads to itself"),
        ({"paths": {"/a": {"get": {"parameters": [{"$ref": "file:///etc/passwd"}]}}}}, "nothing is fetched"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused_with_the_remedy(change: dict[str, Any], said: str) -> None:
    document = {key: value for key, value in {**described(), **change}.items() if value is not None}
    with pytest.raises(ArgumentError, match=said) as refused:
        import_operations(document)
    assert refused.value.remedy


def test_another_server_is_taken_where_one_is_named() -> None:
    found = contracts(described(), url="http://localhost:8080/x", operations=("issues/create",))
    assert found["issues_create"]["url"].startswith("http://localhost:8080/x/projects/")


def test_odd_parts_of_a_description_cost_that_part_only() -> None:
    document = described()
    document["paths"] |= {
        "/odd": None,
        "/list": [],
        "/undeclared/{a}": {"get": {}},
        "/types": {
            "get": {"parameters": [{"name": "a", "in": "query", "schema": {"type": "weird", "pattern": "(("}}, 3]}
        },
        "/text": {"get": {"description": 3, "tags": "x", "responses": [], "security": 5, "parameters": {}}},
    }
    found = import_operations(document)
    assert {"get_types", "get_text", "issues_create"} <= {tool.name for tool in found.tools}
    (undeclared,) = (tool for tool in found.tools if "undeclared" in tool.name)
    assert undeclared.contract["parameters"] == {"a": {"type": "string"}}
    assert any("does not declare {a}" in note for note in undeclared.notes)
    assert "get_types" in contracts({**document, "security": []})


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@pytest.mark.parametrize("version", ["3.0", "2.0"])
def test_no_odd_value_anywhere_is_more_than_a_refusal(version: str) -> None:
    document = described() if version == "3.0" else yaml.safe_load(OLDER)
    for path in places(document)[1:]:
        for odd in (None, 3, "\x1b[31m$", [], {}, [[1]], {"$ref": "#/paths"}):
            changed = copy.deepcopy(document)
            holder: Any = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = odd
            try:
                for tool in import_operations(changed).tools:
                    assert len(tool.written("a test")) < 100_000
            except ArgumentError as exc:
                assert exc.remedy  # noqa: PT017 - it may or may not be refused


def test_a_key_that_is_declared_as_a_parameter_too_is_the_secret_alone() -> None:
    document = described()
    document["components"]["securitySchemes"]["bearer"] = {"type": "apiKey", "in": "query", "name": "state"}
    listing = contracts(document)["issues_list-for-project"]
    assert listing["query"] == {"state": {"secret": "EU_TRACKER_EXAMPLE_BEARER"}}
    assert "state" not in listing["parameters"]


def test_a_schema_that_grows_by_references_is_bounded() -> None:
    document = described()
    names = [f"S{index}" for index in range(40)]
    schemas = document["components"]["schemas"]
    for name, after in zip(names, [*names[1:], "Base"], strict=True):
        schemas[name] = {
            "type": "object",
            "properties": {f"p{i}": {"$ref": f"#/components/schemas/{after}"} for i in range(20)},
        }
    schemas["NewIssue"] = {"$ref": "#/components/schemas/S0"}
    begin = time.monotonic()
    found = import_operations(document)
    assert time.monotonic() - begin < 60
    assert max(len(tool.written("a test")) for tool in found.tools) < 1024 * 1024


def test_no_path_leads_to_another_host_than_the_server_that_is_named() -> None:
    document = described()
    document["paths"] |= {path: {"get": {}} for path in (".evil.example/x", ":8443/x", "@evil.example/x", "x", "")}
    found = import_operations(document, url="https://api.example.com")
    assert all(tool.contract["url"].startswith("https://api.example.com/") for tool in found.tools)
    assert sum("its path does not begin with /" in note for note in found.notes) == 5


def test_parameters_and_members_that_operations_share_are_bounded() -> None:
    document = described()
    many = {f"p{index}": {"type": "string"} for index in range(5000)}
    document["x"] = {
        "get": {"parameters": [{"name": name, "in": "query", "schema": part} for name, part in many.items()]}
    }
    document["y"] = {
        "post": {
            "requestBody": {"content": {"application/json": {"schema": {"properties": many, "required": [*many]}}}}
        }
    }
    document["paths"] = {f"/{kind}{index}": {"$ref": f"#/{kind}"} for kind in "xy" for index in range(20)}
    found = import_operations(document)
    assert sum("it has more than 300 parameters" in note for note in found.notes) == 20
    assert [list(tool.contract["parameters"]) for tool in found.tools] == [["body"]] * 20
    assert max(len(tool.written("a test")) for tool in found.tools) < 256 * 1024


def test_yaml_that_grows_or_has_no_end_is_refused() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))]
    tall = [
        "b0: &b0 " + "[" * 150 + "]" * 150,
        *(f"b{i}: &b{i} " + "[" * 9 + f"*b{i - 1}" + "]" * 9 for i in range(1, 99)),
    ]
    for bomb in (lines, tall, ["c: &c [*c]"], ["d: &d {e: *d}"], ["f: .inf", "g: 1e999"]):
        with pytest.raises(ArgumentError, match=r"beyond any use|nested too deeply"):
            read_foreign(API + "x-bomb:\n" + "".join(f"  {line}\n" for line in bomb), "api.yaml")
    with pytest.raises(ArgumentError, match="merge keys"):
        read_foreign("a: &a {x: 1}\nb: {<<: [*a, *a]}\n", "api.yaml")
    for text in ("[" * 100_000, "{" * 100_000, "a: [", '{"a": 1', "a: " + "[" * 3000 + "]" * 3000, '{"a": NaN}'):
        with pytest.raises(ArgumentError):
            read_foreign(text, "api.yaml")


def test_words_are_those_of_yaml_1_2() -> None:
    text = "{x: no, y: on, when: 2024-01-01, at: 12:30:00, n: 010, big: 1_000, t: true, f: 1.5e3, i: -7, e: ~}"
    assert read_foreign(f"a: {text}", "api.yaml")["a"] == {
        "x": "no", "y": "on", "when": "2024-01-01", "at": "12:30:00", "n": "010", "big": "1_000", "t": True,
        "f": 1500.0, "i": -7, "e": None,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["openapi", "mcp-json"])
def test_an_address_in_place_of_a_file_is_refused_with_how_to_fetch_it(tmp_path: Path, kind: str) -> None:
    done = praxis("import", kind, "https://tracker.example/api.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing is fetched" in done.stderr
    assert "curl" in done.stderr


def test_the_command_writes_contracts_that_are_valid_and_overwrites_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "api.yaml").write_text(API)
    done = praxis("import", "openapi", "api.yaml", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "wrote 4 contracts to tools" in done.stdout
    assert "PUT /upload is left out" in done.stderr
    assert "EU_TRACKER_EXAMPLE_TOKEN" in done.stderr
    assert praxis("validate", cwd=tmp_path).returncode == 0
    again = praxis("import", "openapi", "api.yaml", "--tag", "issues", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already; nothing was written" in again.stderr
    file = tmp_path / "tools" / "issues_create" / "contract.yaml"
    file.write_text("name: mine\n")
    forced = praxis("import", "openapi", "api.yaml", "--tag", "issues", "--force", cwd=tmp_path)
    assert forced.returncode == 0, forced.stderr
    assert "engine: http" in file.read_text()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    done = praxis("import", "openapi", "-", "--dry-run", "--operation", "issues/create", cwd=tmp_path, stdin=API)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["name"] == "issues_create"
    assert list((tmp_path / "tools").iterdir()) == []


OLDER = """\
swagger: "2.0"
info: {title: Pets, version: "1"}
host: pets.example
basePath: /v2
schemes: [http, https]
consumes: [application/json]
produces: [application/json]
securityDefinitions:
  who: {type: basic}
  session: {type: apiKey, in: cookie, name: sid}
security: [{who: []}]
parameters:
  Id: {name: id, in: path, required: true, type: integer, format: int64}
responses:
  Pet: {description: one, schema: {$ref: '#/definitions/Pet'}}
paths:
  /pets/{id}:
    parameters: [{$ref: '#/parameters/Id'}]
    get:
      operationId: getPet
      parameters:
        - {name: fields, in: query, type: array, items: {type: string}, collectionFormat: csv}
        - {name: tag, in: query, type: array, items: {type: string}, collectionFormat: multi}
        - {name: since, in: query, type: string, x-nullable: true, default: "2020-01-01"}
      responses: {200: {$ref: '#/responses/Pet'}}
    put:
      operationId: updatePet
      parameters: [{name: pet, in: body, required: true, schema: {$ref: '#/definitions/Pet'}}]
      responses: {204: {description: none}}
    post:
      operationId: renamePet
      security: [{session: []}]
      consumes: [application/x-www-form-urlencoded]
      parameters:
        - {name: name, in: formData, required: true, type: string}
        - {name: status, in: formData, type: string, enum: [sold, free]}
      responses: {200: {description: ok}}
definitions:
  Pet:
    type: object
    required: [name]
    properties: {name: {type: string}, parent: {$ref: '#/definitions/Pet'}, id: {type: integer, readOnly: true}}
"""


def test_the_older_version_2_becomes_the_same_contracts() -> None:
    found = contracts(yaml.safe_load(OLDER))
    pet = found["getPet"]
    assert pet["url"] == "https://pets.example/v2/pets/{id}"
    assert pet["basic_user"] == {"secret": "PETS_EXAMPLE_USER"}
    assert pet["output"] == "json"
    assert pet["parameters"]["id"] == {"type": "integer", "format": "int64"}
    assert pet["parameters"]["fields"]["bind"] == {"query": "fields"}
    assert pet["parameters"]["tag"]["bind"] == {"query": "tag", "repeat": True}
    assert pet["parameters"]["since"]["type"] == ["string", "null"]
    updated = found["updatePet"]["parameters"]
    assert set(updated) == {"id", "name", "parent"}
    assert updated["name"]["bind"] == {"body": "name"}
    renamed = found["renamePet"]
    assert (renamed["body"], renamed["parameters"]["status"]["enum"]) == ("form", ["sold", "free"])
    assert renamed["parameters"]["status"]["required"] is False
    assert renamed["headers"] == {"Cookie": {"secret": "PETS_EXAMPLE_COOKIE"}}


@pytest.mark.parametrize("path", ["v2", "/v2", "v2/", "//v2", "/", "", None, ["v2"]])
def test_the_base_path_of_version_2_is_never_part_of_the_host_s_name(path: Any) -> None:
    document = {**yaml.safe_load(OLDER), "basePath": path}
    below = "/v2" if isinstance(path, str) and "v2" in path else ""
    assert contracts(document)["getPet"]["url"] == f"https://pets.example{below}/pets/{{id}}"


def test_what_a_schema_itself_forbids_is_left_out_and_named() -> None:
    schemas = {
        "a.b": {"type": "integer", "default": "many"},
        "c": {"type": "integer", "enum": ["one", 2]},
        "d": {"type": "object", "properties": {"e": {"type": "array", "items": {"type": "string", "minLength": -1}}}},
    }
    document = described()
    parameters = [{"name": name, "in": "query", "schema": schema} for name, schema in schemas.items()]
    document["paths"] = {"/x": {"get": {"operationId": "x", "parameters": parameters}}}
    (tool,) = import_operations(document).tools
    written, error = as_file(tool, "a test")
    assert error is None
    assert not [item for item in load_text(written).diagnostics if item.is_error]
    left_out = [note.partition(" is left out: ")[0] for note in tool.notes if " is left out: " in note]
    assert sorted(left_out) == [
        "parameters.a.b.default", "parameters.c.enum", "parameters.d.properties.e.items.minLength",
    ]  # fmt: skip


def test_two_ways_to_authenticate_at_once_are_named_where_one_request_cannot_have_both() -> None:
    document = described()
    schemes = document["components"]["securitySchemes"]
    schemes |= {"basic": {"type": "http", "scheme": "basic"}, "certificate": {"type": "mutualTLS"}}
    document["paths"] = {
        "/both": {"get": {"operationId": "both", "security": [{"bearer": [], "basic": []}]}},
        "/first": {"get": {"operationId": "first", "security": [{"certificate": []}, {"key": [], "basic": []}]}},
    }
    found = import_operations(document)
    both, first = found.tools
    assert both.notes == ["Its authentication is not carried over: bearer, basic."]
    assert not both.secrets
    assert first.contract["headers"] == {"X-Api-Key": {"secret": "EU_TRACKER_EXAMPLE_KEY"}}
    assert "basic_user" in first.contract


def test_references_to_operations_and_with_encoded_names_are_followed_and_fragments_of_paths_left_out() -> None:
    document = described()
    document["paths"] = {
        "/a/{id}": {"get": {"$ref": "#/x/of%20a"}},
        "/a/{id}#other": {"get": {"$ref": "#/x/of%20a"}},
        "/b": {"get": {"$ref": "resources/b.yml"}},
    }
    document["x"] = {"of a": {"operationId": "a", "parameters": [{"name": "id", "in": "path", "schema": {}}]}}
    with pytest.raises(ArgumentError, match="nothing is fetched"):
        import_operations(document)
    del document["paths"]["/b"]
    assert {tool["url"].rpartition(".example")[2] for tool in contracts(document).values()} == {"/api/v1/a/{id}"}


def test_thousands_of_operations_of_one_name_take_no_longer_than_others() -> None:
    document = described()
    document["paths"] = {f"/{index}": {"get": {"operationId": "same"}} for index in range(1900)}
    begin = time.monotonic()
    assert len({tool.name for tool in import_operations(document).tools}) == 1900
    assert time.monotonic() - begin < 60


def test_deep_objects_and_forms_in_parts_keep_their_shape() -> None:
    document = described()
    range_ = {"type": "object", "properties": {"gt": {"type": "integer"}}}
    names = {"type": "array", "items": {"type": "string"}}
    binary = {"type": "string", "format": "binary"}
    parts = {"title": {"type": "string"}, "file": binary, "more": {"type": "array", "items": binary}}
    form = {"schema": {"type": "object", "properties": {"card": range_, "expand": names}}}
    form["encoding"] = {name: {"style": "deepObject", "explode": True} for name in ("card", "expand")}
    document["paths"] = {
        "/deep": {
            "get": {
                "operationId": "deep",
                "parameters": [
                    {"name": "created", "in": "query", "style": "deepObject", "schema": range_},
                    {"name": "expand", "in": "query", "style": "deepObject", "schema": names},
                    {"name": "ids", "in": "query", "style": "pipeDelimited", "schema": names},
                ],
            },
            "post": {
                "operationId": "charge",
                "requestBody": {"content": {"application/x-www-form-urlencoded": form}},
            },
            "put": {
                "operationId": "upload",
                "requestBody": {
                    "content": {"multipart/form-data": {"schema": {"type": "object", "properties": parts}}}
                },
            },
            "patch": {"operationId": "any", "requestBody": {"content": {"*/*": {"schema": range_}}}},
        }
    }
    found = contracts(document)
    deep = found["deep"]["parameters"]
    assert deep["created"]["bind"] == {"query": "created", "deep": True}
    assert deep["expand"]["bind"] == {"query": "expand", "deep": True}
    assert deep["ids"]["bind"] == {"query": "ids"}
    assert found["charge"]["parameters"]["card"]["bind"] == {"body": "card", "deep": True}
    uploaded = found["upload"]
    assert uploaded["body"] == "multipart"
    assert uploaded["parameters"]["file"]["contentEncoding"] == "base64"
    assert uploaded["parameters"]["more"]["items"]["contentEncoding"] == "base64"
    assert "format" not in uploaded["parameters"]["file"]
    assert list(found["any"]["parameters"]) == ["gt"]
    assert "headers" not in found["any"]

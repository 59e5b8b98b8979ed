"""The real API's schema, as data: an introspection of v0.21.8."""

import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "PRAXIS_DAGGER_SCHEMA"
_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "dagger" / "schema-v0.21.8.json"


def schema_file() -> Path:
    """Where the schema is: where `PRAXIS_DAGGER_SCHEMA` says, else in `shared/` beside the checkout."""
    return Path(os.environ.get(VARIABLE) or _DEFAULT)


def load() -> Any:
    """The schema, ready to check queries by."""
    from graphql import build_client_schema

    return build_client_schema(json.loads(schema_file().read_text()))

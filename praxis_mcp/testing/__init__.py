"""The conformance suite for engines: what `praxis_mcp` expects of every one, as pytest tests that other packages run
over theirs. Needs pytest, which nothing else here imports: ``pip install '/path/to/praxis-mcp[testing]'``.

In the package's own tests::

    # conftest.py, in the root of the tests
    pytest_plugins = ["praxis_mcp.testing.plugin"]

    # test_conformance.py
    from praxis_mcp import Capability, ToolContract
    from praxis_mcp.testing import EngineCase
    from praxis_mcp.testing.conformance import *
    from praxis_mcp.testing.limits import *

    class TinyCase(EngineCase):
        name = "tiny"

        @property
        def lacks(self):
            return frozenset({Capability.MOUNTS, ...})

        def engine(self, settings):
            return TinyEngine(settings)

        def contract(self, command, **fields):
            return ToolContract.create_dagger_tool("conformance", "python:3.11-slim", list(command), **fields)

    CASES = [TinyCase()]

`lacks` is what the engine cannot enforce: the suite checks that it refuses that. Tests of one's own take the fixture
`bench`, a `Bench`, as those of the suite do. `conformance` is what a tool gets and gives; `limits` is what is limited,
killed or kept apart.
"""

from __future__ import annotations

import pytest

# Before they are imported, so that a failing assert shows its values.
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("bench", "conformance", "limits")))

from praxis_mcp.testing.bench import CALL_LIMIT, Bench, EngineCase, parameters  # noqa: E402  # noqa: E402

__all__ = ["CALL_LIMIT", "Bench", "EngineCase", "parameters"]

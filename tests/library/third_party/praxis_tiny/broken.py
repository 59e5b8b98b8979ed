"""An engine whose package is not whole."""

import a_module_that_is_not_installed  # pyright: ignore[reportMissingImports] # noqa: F401

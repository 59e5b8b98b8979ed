"""The engines: one conformance suite over all of them, and what each has of its own."""

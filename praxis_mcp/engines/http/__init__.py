"""The engine of HTTP requests."""

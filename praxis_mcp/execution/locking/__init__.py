"""``praxis.lock``: what every tool was when somebody locked it, and servers that run nothing else (docs/lock.md)."""

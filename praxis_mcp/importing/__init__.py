"""What others wrote (settings of MCP clients, ``docker run`` commands) as settings and contracts of ours.

Nothing is carried over in part without a word: what has no place here is named, and secrets are never written in clear.
"""

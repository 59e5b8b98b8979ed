"""A double of the Dagger CLI and engine, for machines that have neither. It is not Dagger.

It speaks the protocol of `dagger session` (a port and a token on standard output, GraphQL over HTTP, logs as
server-sent events, an end when standard input closes), refuses every query that the API's schema (as the installed SDK
has it) refuses, and runs what it supports on the local Docker daemon. What it copies of Dagger's behaviour, as read in
the source of v0.21.8 and seen on a real engine:

- an exec is known by all that goes into it, its result is kept, in later sessions too, and equal ones in flight run
  once; it is killed when the last request that waits for it is closed
- exit codes 128 to 191 are errors under ANY, carry the last 100 KiB of each stream, trimmed, and are not kept
- text is UTF-8: what is not UTF-8 arrives as U+FFFD, and is missing from the logs
- a host path is read once a session, unless `noCache`
- a socket of the host is forwarded, to the exec's user alone, and does not tell that the host's end was closed
- ids are valid in their session alone; what comes back to the host belongs to the CLI's user

What it does not: a second exec on top of a first, logs from before a reader came, OCI layouts as images.
"""

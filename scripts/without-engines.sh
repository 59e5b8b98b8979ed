#!/usr/bin/env bash
# Runs a command where no engine can be found, as on a fresh machine: `scripts/without-engines.sh make test`.
#
# In a mount namespace of its own (unshare(1): as root, or where users may make namespaces) the programs of Docker,
# Podman, Dagger, bubblewrap, etcd (and so Kubernetes) and PostgreSQL cannot be executed, wherever on the PATH (or in Debian's place for the last)
# they lie, their sockets lead nowhere, and their variables are gone. praxis-init, which comes with the package, stays. What the host has is not touched.
set -euo pipefail

programs=(docker dockerd podman nerdctl containerd etcd buildctl bwrap dagger initdb postgres)
if [[ ${1:-} != --inside ]]; then
    if ((EUID == 0)); then
        exec unshare --mount --propagation private "$0" --inside "$@"
    fi
    exec unshare --user --map-root-user --mount --propagation private "$0" --inside "$@"
fi
shift

hide() { # a file that is neither executable nor a socket takes its place
    mount --bind /dev/null "$1"
}

IFS=: read -ra places <<<"$PATH"
for place in "${places[@]}" /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin /usr/lib/postgresql/*/bin; do
    for program in "${programs[@]}"; do
        [[ -x $place/$program && -f $place/$program ]] && hide "$(readlink -f "$place/$program")"
    done
done
for socket in /run/docker.sock /run/podman/podman.sock /run/containerd/containerd.sock \
    "${XDG_RUNTIME_DIR:-/nonexistent}"/{docker.sock,podman/podman.sock} "${HOME:-/nonexistent}"/.docker/run/docker.sock; do
    [[ -S $socket ]] && hide "$(readlink -f "$socket")"
done
while IFS='=' read -r name _; do
    unset "$name"
done < <(env | grep -E '^(DOCKER_|DAGGER_|_EXPERIMENTAL_DAGGER_|CONTAINER_HOST|BUILDKIT_HOST)' || true)
# Contexts, which name sockets elsewhere, are in its configuration.
DOCKER_CONFIG=$(mktemp -d)
export DOCKER_CONFIG
trap 'rm -rf "$DOCKER_CONFIG"' EXIT
"$@"

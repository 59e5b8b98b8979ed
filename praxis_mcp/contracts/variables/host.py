"""Variables that describe the machine they are set on: where its programs, libraries and directories are.

Inside an image they are wrong, and PATH and HOME of the image would be lost for them, so `env_passthrough` does not
carry them there. `env` sets them all the same: whoever writes a value for an image knows the image.
"""

from __future__ import annotations

# POSIX (Base Definitions, 8.3), environ(7), ld.so(8), the XDG base directory specification, and the installation
# directories of interpreters and toolchains.
_NAMES = """
PATH HOME SHELL PWD OLDPWD TMPDIR TMP TEMP HOSTNAME ENV BASH_ENV MANPATH INFOPATH TERMINFO TERMINFO_DIRS LOCPATH NLSPATH
GCONV_PATH XDG_CACHE_HOME XDG_CONFIG_DIRS XDG_CONFIG_HOME XDG_DATA_DIRS XDG_DATA_HOME XDG_RUNTIME_DIR XDG_STATE_HOME
DBUS_SESSION_BUS_ADDRESS VIRTUAL_ENV CONDA_PREFIX PYENV_ROOT PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONUSERBASE
PYTHONEXECUTABLE NODE_PATH NVM_DIR PERL5LIB PERLLIB RUBYLIB GEM_HOME GEM_PATH JAVA_HOME CLASSPATH GOPATH GOROOT GOBIN
CARGO_HOME RUSTUP_HOME LUA_PATH LUA_CPATH GIT_EXEC_PATH
USERPROFILE HOMEDRIVE HOMEPATH APPDATA LOCALAPPDATA PROGRAMDATA PROGRAMFILES SYSTEMROOT WINDIR COMSPEC PATHEXT
"""
_EXACT = frozenset(_NAMES.split())
_PREFIXES = ("LD_", "DYLD_")


def is_of_the_host(name: str) -> bool:
    """Whether a variable of this name describes the machine that it is set on; ``Path`` is PATH on Windows."""
    name = name.upper()
    return name in _EXACT or name.startswith(_PREFIXES)

# Sourced by the other scripts (POSIX sh): makes or reuses an environment, and installs into it.
# The caller sets root, the folder of pyproject.toml, and calls
#   use_environment          sets PYTHON: the active virtual environment's, else $root/.venv's
#   install_distgrad EXTRAS  installs root, editable, unless it is installed and unchanged

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 3
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$candidate"; then
            # A name on PATH may be a wrapper; the path that it runs is what an environment needs.
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

use_environment() {
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        PYTHON=$VIRTUAL_ENV/bin/python
        is_new_enough "$PYTHON" ||
            fail "the active virtual environment $VIRTUAL_ENV has no working Python 3.11 or" \
                "newer; run 'deactivate' and try again"
        return
    fi
    PYTHON=$root/.venv/bin/python
    # An environment that was moved or copied still points to where it was made.
    if is_new_enough "$PYTHON" && grep -qF "$root/.venv" "$root/.venv/bin/activate"; then
        return
    fi
    base=$(find_python) || fail "Python 3.11 or newer is needed, and no python3 on PATH is one;" \
        "install it from https://www.python.org/downloads/"
    if [ -e "$root/.venv" ]; then
        [ -f "$root/.venv/pyvenv.cfg" ] ||
            fail "$root/.venv is in the way, and is no virtual environment; rename it and try again"
        echo "Making $root/.venv anew: it was incomplete, moved, or older than Python 3.11"
        rm -rf "$root/.venv"
    fi
    make_environment "$base"
}

make_environment() {
    echo "Making the virtual environment $root/.venv with $1"
    if "$1" -c 'import ensurepip' 2>/dev/null && "$1" -m venv "$root/.venv" >/dev/null 2>&1; then
        return
    fi
    # Debian leaves ensurepip out of its Python: virtualenv brings a pip of its own.
    "$1" -m pip --version >/dev/null 2>&1 ||
        fail "$1 has neither ensurepip nor pip; install one of them" \
            "(Debian, Ubuntu: apt install python3-venv)"
    rm -rf "$root/.venv"
    tools=$(mktemp -d)
    "$1" -m pip install --quiet --disable-pip-version-check --target "$tools" virtualenv &&
        PYTHONPATH=$tools "$1" -m virtualenv --quiet "$root/.venv" || {
        rm -rf "$tools" "$root/.venv"
        fail "no virtual environment could be made in $root/.venv; see the messages above"
    }
    rm -rf "$tools"
}

install_distgrad() {
    stamp=$("$PYTHON" -c 'import sys; print(sys.prefix)')/.distgrad-$1
    wanted="$(cksum <"$root/pyproject.toml") $1 $root"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] &&
        (cd / && "$PYTHON" -c 'import distgrad') >/dev/null 2>&1; then
        return
    fi
    "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip >/dev/null 2>&1 ||
        fail "$PYTHON has no pip; install pip into that environment, or deactivate it and try again"
    echo "Installing distgrad[$1] with $PYTHON (a minute or two the first time)"
    rm -f "$stamp"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "$root[$1]" ||
        fail "pip could not install distgrad[$1]; see its messages above"
    printf '%s\n' "$wanted" >"$stamp"
}

#!/bin/sh
# Run a command by its name: `main` with its flags, or a module of util_scripts, such as `predict`.
set -eu
code=$(CDPATH='' cd "$(dirname "$0")" && pwd)
PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
# Of a user without a home, libraries would complain that their caches cannot be written.
if [ ! -w "${HOME:-/}" ]; then
    HOME=$(mktemp -d)
    export HOME
fi
commands="main, or one of $(cd "$code/util_scripts" && ls -- *.py | sed 's/\.py$//' | grep -v __ \
    | tr '\n' ' ')"
command=${1:---help}
[ $# -eq 0 ] || shift
if [ "$command" = --help ] || [ "$command" = -h ]; then
    echo "usage: COMMAND FLAGS, where COMMAND is $commands(COMMAND --help lists its flags)"
    exit 0
fi
if [ "$command" = main ]; then
    exec python "$code/main.py" "$@"
elif [ -f "$code/util_scripts/$command.py" ]; then
    exec python -m "util_scripts.$command" "$@"
fi
echo "error: no command $command; give $commands" >&2
exit 2

"""Errors whose cause is what a user gave, and how a command ends when it meets one."""

import sys


class InputError(Exception):
    """A flag, file or folder is wrong: the message says what, where and the cure, in one sentence.

    Every error of this codebase that a user can mend is one of these; a programming error is not.
    """


def run(command, argv=None):
    """Call `command(argv)` as a process: exit 2 with one line on stderr after an InputError.

    Ctrl-C exits 130. Whatever else is raised is a bug and keeps its traceback. `command` returns
    the exit status, None for 0.
    """
    try:
        sys.exit(command(argv))
    except InputError as error:
        message = ' '.join(str(error).split())
        print(f'error: {message}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)

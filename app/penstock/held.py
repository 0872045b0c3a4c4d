"""The signals that a service understands, kept waiting while nobody can take them.

Imported before anything else: only what the interpreter itself has loaded by then. That is why
it is ``_signal`` (built in) and not ``signal``, whose ``enum`` costs as much as half a start.
"""

from _signal import (  # type: ignore[import-not-found]  # typeshed knows only signal
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    SIGTSTP,
    SIGTTIN,
    SIGUSR1,
    SIGUSR2,
    pthread_sigmask,
)

#: What the supervisor makes requests of, and USR1, which has faulthandler write stacks.
SIGNALS = (SIGTERM, SIGINT, SIGQUIT, SIGUSR2, SIGHUP, SIGTSTP, SIGCONT, SIGTTIN, SIGUSR1)


def hold() -> set[int]:
    """Keep the signals waiting; returns the mask as it was.

    Before there is a handler, PID 1 drops TERM, anything else dies of it, and TSTP freezes the
    process. A process that is started meanwhile starts with them waiting, too.
    """
    before: set[int] = pthread_sigmask(SIG_BLOCK, SIGNALS)
    return before


def restore(mask: set[int]) -> None:
    """The mask that :func:`hold` found."""
    pthread_sigmask(SIG_SETMASK, mask)


def release() -> None:
    """Let what waited come, and what comes from now on."""
    pthread_sigmask(SIG_UNBLOCK, SIGNALS)

"""The exception for mistakes that a user can fix, and the one of them that callers catch."""


class UserError(ValueError):
    """Bad input: the message names the thing and says what to do.

    Command lines print it as one line and exit with status 1; every other exception is a bug in this package and keeps
    its traceback.
    """


class DivergedError(UserError):
    """A loss of a training is no longer a number; after: how many updates (of a base network: epochs) it took."""

    def __init__(self, text: str, after: int) -> None:
        super().__init__(text)
        self.after = after

"""The one exception for mistakes that a user can fix."""


class UserError(ValueError):
    """Bad input: the message names the thing and says what to do.

    Command lines print it as one line and exit with status 1; every other exception is a bug in this package and keeps
    its traceback.
    """

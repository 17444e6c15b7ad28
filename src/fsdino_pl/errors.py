"""The one exception that means: the input is wrong, and here is how to mend it."""


class UserError(Exception):
    """Bad input: one line saying what is wrong, where, and how to mend it (exit code 2)."""

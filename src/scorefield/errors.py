"""What is the user's to fix."""


class InputError(ValueError):
    """Something given to scorefield (a file, a key, a value) cannot be used.

    The message is one line that names the cause and the fix; the command line prints it alone and exits with code 2.
    Anything else that is raised is a defect of ours and keeps its traceback.
    """


class AbsentDataError(InputError):
    """Data are not where they were said to be. Nothing is known to be wrong with them."""

"""What can go wrong because of what the user gave us, as one readable line."""


class InputError(ValueError):
    """An input that cannot be used; the message is one line that says what to do.

    The command line prints it and exits with code 2, the widget shows it as a
    notification. Anything else that is raised is a defect of ours.
    """


class InputWarning(UserWarning):
    """What the user should know about a file that was read or written all the same: one line.

    The command line prints it, napari shows it as a notification.
    """

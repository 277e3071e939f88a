"""What goes wrong in the user's hands, said in the user's words."""


class ConfigError(ValueError):
    """A mistake in what was asked for; the message says what was given, what is allowed, what to do."""


class RunError(RuntimeError):
    """A run that cannot go on (non-finite loss, full disk); what was saved before stays valid."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; what was saved stays. Not an Exception: a sweep must stop as well."""

    def __init__(self, signal_number: int):
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


class DivergenceError(RunError):
    """A loss or an answer that is not finite."""

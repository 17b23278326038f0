"""The errors of this package."""


class CheckpointError(ValueError):
    """A directory that cannot be written or must not be read; names the file or tensor, the rule and the value."""


class OutputError(CheckpointError):
    """An output directory that must not be written: the caller has to choose another one."""

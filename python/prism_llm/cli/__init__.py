"""The command `prism`."""

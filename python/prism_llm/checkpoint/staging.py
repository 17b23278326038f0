"""A directory that appears under its name complete or not at all.

Everything is written into ``<out>.tmp-<pid>`` beside the output, synced to the disk, and renamed. Whatever kills the
process, the output's name holds the old directory, the new one, or nothing.
"""

import ctypes
import errno
import os
import re
import shutil
import socket
import sys
from pathlib import Path

from ._errors import OutputError
from ._layout import MANIFEST

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_OWNER = ".owner"


class StagingDirectory:
    """The life of one output directory: `create`, fill `path`, then `publish` or `discard`.

    Args:
        out: the directory to produce. An existing one is refused, unless it is empty or `overwrite` is given and it is
            a checkpoint of this package.
    """

    def __init__(self, out: str | Path, *, overwrite: bool = False) -> None:
        self.out = Path(os.path.abspath(os.path.realpath(out)))
        self.overwrite = overwrite
        self.path = self.out.with_name(f"{self.out.name}.tmp-{os.getpid()}")

    def create(self) -> None:
        """Cleans up after killed runs and makes the empty staging directory. Raises OutputError."""
        self.check_target()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(self.out)
        try:
            self.path.mkdir()
        except FileExistsError as error:
            raise OutputError(
                f"output: must have one writer at a time, got {self.path} of this process already there"
            ) from error
        (self.path / _OWNER).write_text(socket.gethostname(), "utf-8")

    def check_target(self) -> None:
        """Raises OutputError where the output may not be written. Cheap: ask before the long work."""
        if not os.path.lexists(self.out) or _is_empty_directory(self.out):
            return
        if not self.overwrite:
            raise OutputError(f"output: must not exist (overwrite replaces a checkpoint), got {self.out}")
        if not (self.out / MANIFEST).is_file():
            raise OutputError(f"output: only a checkpoint is overwritten, got {self.out}, which holds no {MANIFEST}")

    def publish(self) -> Path:
        """Syncs everything to the disk and puts it under the output's name; the old directory goes last."""
        (self.path / _OWNER).unlink()
        for folder, _, names in os.walk(self.path, topdown=False):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        self.check_target()
        if os.path.lexists(self.out) and not _is_empty_directory(self.out):
            self._swap()
        else:
            os.rename(self.path, self.out)
        _sync(self.out.parent)
        return self.out

    def _swap(self) -> None:
        if _exchange(self.path, self.out):
            shutil.rmtree(self.path)
            return
        backup = self.out.with_name(f"{self.out.name}.bak-{os.getpid()}")
        os.rename(self.out, backup)
        os.rename(self.path, self.out)
        shutil.rmtree(backup)

    def discard(self) -> None:
        """Removes the staging directory."""
        shutil.rmtree(self.path, ignore_errors=True)


def remove_stale(out: Path) -> None:
    """Removes what killed runs left beside `out`; puts back the old directory if one died between two renames."""
    pattern = re.compile(re.escape(out.name) + r"\.(tmp|bak)-(\d+)")
    for entry in sorted(out.parent.iterdir()):
        match = pattern.fullmatch(entry.name)
        if not match or not entry.is_dir() or entry.is_symlink() or _alive(int(match[2])) or _foreign(entry):
            continue
        if match[1] == "bak" and not out.exists():
            os.rename(entry, out)
        else:
            shutil.rmtree(entry, ignore_errors=True)


def _foreign(entry: Path) -> bool:
    # On a shared disk a process number of another machine says nothing about a process here.
    owner = entry / _OWNER
    return owner.is_file() and owner.read_text("utf-8") != socket.gethostname()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two directories in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if libc.renameat2(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))

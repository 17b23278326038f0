"""The C++ tests with AddressSanitizer and UBSan. Their build takes minutes: it begins with the session, at the lowest
priority beside the other tests, and the last test waits for it."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDS_BUILD = "test_kernels_are_clean"


class SanitizedBuild:
    tree = ROOT / "build" / "sanitized"
    environment = os.environ | {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}

    def __init__(self):
        self._process = None
        self._log = self.tree / "build.log"

    def is_possible(self):
        return sys.platform == "linux" and bool(shutil.which("g++") or shutil.which("clang++"))

    def start(self):
        self.tree.mkdir(parents=True, exist_ok=True)
        configure = ["cmake", "-S", ROOT, "-B", self.tree, "-G", "Ninja", "-DPRISM_BUILD_MODULES=OFF",
                     "-DPRISM_BUILD_TESTS=ON", "-DPRISM_SANITIZE=ON"]  # fmt: skip
        subprocess.run(configure, check=True, env=self.environment, stdout=subprocess.DEVNULL)
        build = ["nice", "-n", "19", "cmake", "--build", self.tree, "--parallel", "2"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                build, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def finish(self):
        """Waits for the build, which must succeed."""
        assert self._process.wait() == 0, self._log.read_text()[-4000:]

    def stop(self):
        """Ends a build that nobody waited for."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()


_BUILD = SanitizedBuild()


@pytest.fixture(scope="session")
def sanitized_build():
    return _BUILD


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.name == NEEDS_BUILD)  # stable: that one last, all others as they were


def pytest_collection_finish(session):
    wanted = any(item.name == NEEDS_BUILD for item in session.items)
    if wanted and _BUILD.is_possible() and not session.config.option.collectonly:
        _BUILD.start()


def pytest_sessionfinish():
    _BUILD.stop()

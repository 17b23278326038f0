"""The torch-free kernels under AddressSanitizer and UBSan, in every instruction set of this CPU."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TREE = ROOT / "build" / "sanitized"
PROBE = "int main(int c, char**) { int* p = new int[2]; int x = p[c + 1]; delete[] p; return x; }"

pytestmark = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")) or sys.platform != "linux",
    reason="needs g++ or clang++ on Linux",
)


@pytest.fixture(scope="module")
def environment():
    return os.environ | {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}


def test_the_sanitizer_is_active(tmp_path, environment):
    (tmp_path / "probe.cpp").write_text(PROBE)
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["c++", *flags, "probe.cpp", "-o", "probe"], cwd=tmp_path, check=True, env=environment)
    result = subprocess.run([tmp_path / "probe"], capture_output=True, text=True)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


def test_kernels_are_clean(environment):
    configure = ["cmake", "-S", ROOT, "-B", TREE, "-G", "Ninja", "-DPRISM_BUILD_MODULES=OFF", "-DPRISM_BUILD_TESTS=ON",
                 "-DPRISM_SANITIZE=ON"]  # fmt: skip
    subprocess.run(configure, check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run(
        ["cmake", "--build", TREE, "--parallel", "2"], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    result = subprocess.run(
        ["ctest", "--test-dir", TREE, "--output-on-failure", "--parallel", "2"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert "100% tests passed" in result.stdout

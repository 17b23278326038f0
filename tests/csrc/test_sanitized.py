"""The torch-free kernels under AddressSanitizer and UBSan, in every instruction set of this CPU."""

import shutil
import subprocess
import sys

import pytest

PROBE = "int main(int c, char**) { int* p = new int[2]; int x = p[c + 1]; delete[] p; return x; }"

pytestmark = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")) or sys.platform != "linux",
    reason="needs g++ or clang++ on Linux",
)


def test_the_sanitizer_is_active(tmp_path, sanitized_build):
    (tmp_path / "probe.cpp").write_text(PROBE)
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        ["c++", *flags, "probe.cpp", "-o", "probe"], cwd=tmp_path, check=True, env=sanitized_build.environment
    )
    result = subprocess.run([tmp_path / "probe"], capture_output=True, text=True)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


def test_kernels_are_clean(sanitized_build):
    sanitized_build.finish()
    result = subprocess.run(
        ["ctest", "--test-dir", sanitized_build.tree, "--output-on-failure", "--parallel", "2"],
        capture_output=True,
        text=True,
        env=sanitized_build.environment,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert "100% tests passed" in result.stdout

"""Packed weights lie in pages of 2 MB, wherever they come from."""

import copy
import errno
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from prism_kernels import huge_pages
from prism_kernels.nn import DualShiftLinear

given = pytest.mark.skipif(
    not huge_pages.status().startswith("given"), reason=f"huge pages on this system: {huge_pages.status()}"
)


def in_huge_pages(tensor):
    """Bytes of the tensor that lie in huge pages, as the system counts them by mapping (a mapping may hold more)."""
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    inside, total = False, 0
    with open("/proc/self/smaps", encoding="ascii") as lines:
        for line in lines:
            first, *rest = line.split()
            if not first.endswith(":"):
                low, high = (int(part, 16) for part in first.split("-"))
                inside = low < end and begin < high
            elif first == "AnonHugePages:" and inside:
                total += 1024 * int(rest[0])
    return total


def packed():
    linear = nn.Linear(2048, 8192, bias=False, dtype=torch.bfloat16)
    return DualShiftLinear.from_linear(linear, bits=4, group_size=64)  # 8 MB of codes


@given
def test_pages_come_together_and_values_stay():
    tensor = torch.arange(2**22)
    address = tensor.data_ptr()
    placed = huge_pages.collapse([tensor])
    assert placed >= 2**25 - 2 * huge_pages.PAGE_BYTES and in_huge_pages(tensor) >= placed
    assert tensor.data_ptr() == address and torch.equal(tensor, torch.arange(2**22))


@given
@pytest.mark.parametrize(
    "again",
    [
        lambda module: module,
        copy.deepcopy,
        lambda module: pickle.loads(pickle.dumps(module)),
        lambda module: module.float().to("cpu"),
    ],
    ids=["packed", "copied", "pickled", "converted"],
)
def test_packed_weights_are_put_into_huge_pages(again):
    module = again(packed())
    assert in_huge_pages(module.codes) >= 3 * huge_pages.PAGE_BYTES


@given
def test_assigned_tensors_are_put_into_huge_pages(monkeypatch):
    monkeypatch.setenv("PRISM_HUGE_PAGES", "0")
    module, other = packed(), packed()
    state = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    monkeypatch.delenv("PRISM_HUGE_PAGES")
    module.load_state_dict(state, assign=True)
    assert module.codes.data_ptr() == state["codes"].data_ptr()
    assert in_huge_pages(module.codes) >= 3 * huge_pages.PAGE_BYTES


def test_the_variable_leaves_pages_alone(monkeypatch):
    monkeypatch.setenv("PRISM_HUGE_PAGES", "0")
    monkeypatch.setattr(huge_pages, "_advise", lambda *_: pytest.fail("the system was asked"))
    assert huge_pages.collapse([torch.ones(2**23)]) == 0
    assert huge_pages.status() == "off (PRISM_HUGE_PAGES=0)"


def test_what_has_no_pages_of_its_own_is_skipped(monkeypatch):
    monkeypatch.setattr(huge_pages, "_advise", lambda *_: pytest.fail("the system was asked"))
    big = 2**22
    tensors = [torch.ones(1000), torch.empty(0), torch.empty(big, device="meta"), torch.ones(2, big).T]
    assert huge_pages.collapse([*tensors, torch.eye(3).to_sparse()]) == 0
    with FakeTensorMode():
        assert huge_pages.collapse([torch.ones(big)]) == 0


def test_older_systems_are_asked_to_do_it_in_the_background(monkeypatch):
    asked = []

    def advise(address, nbytes, advice):
        asked.append(advice)
        return errno.EINVAL if advice == 25 else 0

    monkeypatch.setattr(huge_pages, "_advise", advise)
    assert huge_pages.collapse([torch.ones(2**21)]) == 0
    assert asked == [25, 14]
    assert huge_pages.status().startswith("asked for")


def test_pages_that_the_system_refuses_are_not_counted(monkeypatch):
    def advise(address, nbytes, advice):
        return errno.EAGAIN if nbytes > huge_pages.PAGE_BYTES or address // huge_pages.PAGE_BYTES % 2 else 0

    monkeypatch.setattr(huge_pages, "_advise", advise)
    placed = huge_pages.collapse([torch.ones(2**21)])  # 8 MB, of which 3 to 5 pages are whole
    assert placed in (huge_pages.PAGE_BYTES, 2 * huge_pages.PAGE_BYTES)


def test_a_refusal_is_named(monkeypatch):
    monkeypatch.setattr(huge_pages, "_advise", lambda *_: errno.EPERM)
    assert huge_pages.status() == "refused by the system (Operation not permitted)"

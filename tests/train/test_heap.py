"""Memory that nobody uses is given back, seldom enough to cost nothing."""

import subprocess
import sys

import pytest

from etude.train.watch.heap import AFTERWARDS, EVERY, IDLE, SHARE, Other, Tidy, of_this_process


class Sample:
    """A heap of given bytes, whose trimming, or a look at it, takes so many seconds of a clock that it owns."""

    def __init__(self, used, idle, seconds=0.1, look=0.0):
        self.used, self.idle, self.seconds, self.look = used, idle, seconds, look
        self.now, self.trims, self.looks = 0.0, 0, 0

    def usage(self):
        self.looks += 1
        self.now += self.look
        return self.used, self.idle

    def trim(self):
        self.trims += 1
        self.now += self.seconds

    def clock(self):
        return self.now


def pass_by(tidy, losses):
    for _ in range(losses):
        tidy()


@pytest.mark.parametrize(("idle", "trims"), [(IDLE, 0), (IDLE + 25, 0), (IDLE + 26, 1)])
def test_a_heap_is_trimmed_where_much_lies_idle(idle, trims):
    heap = Sample(used=100, idle=idle)

    pass_by(Tidy(heap, heap.clock), EVERY)

    assert heap.trims == trims


def test_only_every_few_losses_it_is_looked_at():
    heap = Sample(used=0, idle=IDLE + 1, seconds=0.0)
    tidy = Tidy(heap, heap.clock)

    pass_by(tidy, 10 * EVERY)

    assert heap.looks == heap.trims == 10


def test_trimming_takes_no_more_than_its_share_of_the_time():
    heap = Sample(used=0, idle=IDLE + 1, seconds=0.3)
    tidy = Tidy(heap, heap.clock)

    for _ in range(10_000):
        heap.now += 1.0
        pass_by(tidy, EVERY)

    cost = 0.3 * (1 + AFTERWARDS)
    assert 1 < heap.trims * cost <= SHARE * heap.now + cost


def test_looking_takes_no_more_than_its_share_of_the_time():
    heap = Sample(used=0, idle=0, look=0.001)
    tidy = Tidy(heap, heap.clock)

    for _ in range(10_000):
        heap.now += 0.002
        pass_by(tidy, EVERY)

    assert heap.trims == 0
    assert heap.looks > 1
    assert heap.looks * 0.001 <= SHARE * heap.now + 0.001


FRAGMENTED = """
import random
from etude.train.watch.heap import EVERY, Tidy, of_this_process

def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024

draw = random.Random(1)
blocks = [bytearray(b"x") * draw.randrange(20_000, 100_000) for _ in range(16_000)]
del blocks[::2], blocks[::2]
before = resident()
tidy = Tidy(of_this_process())
for _ in range(EVERY):
    tidy()
print(before - resident())
"""


@pytest.mark.skipif(isinstance(of_this_process(), Other), reason="the C library is not glibc 2.33 or later")
def test_holes_between_blocks_in_use_are_given_back():
    command = [sys.executable, "-c", FRAGMENTED]

    given_back = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert given_back > IDLE / 2

"""Holds every packet that a router sends to the device NAME for so many milliseconds, and gives it back.

The way between two local networks is long; not every kernel has netem. The rate is the router's business.
Says `ready` when the device is there; ends with its standard input.
"""

import collections
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET_BYTES = 65536
# More than 100 Mbit/s for the delay; what comes beyond is lost, as at any full router.
MAX_HELD = 4096
# Read at a time, so that what is due does not wait behind what comes.
MAX_READ = 64


def main(name, delay_ms):
    delay = float(delay_ms) / 1e3
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    # A packet is held for its time, not for that of the machine's other work.
    os.nice(-15)
    print("ready", flush=True)
    held = collections.deque()
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else None
        readable, _, _ = select.select([device, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            return
        if device in readable:
            take(device, held, delay)
        now = time.monotonic()
        while held and held[0][0] <= now:
            give(device, held.popleft()[1])


def take(device, held, delay):
    for _ in range(MAX_READ):
        try:
            packet = os.read(device, PACKET_BYTES)
        except BlockingIOError:
            return
        if len(held) < MAX_HELD:
            held.append((time.monotonic() + delay, packet))


def give(device, packet):
    try:
        os.write(device, packet)
    except OSError:
        # Not for this router: its headers are no business of ours.
        pass


main(*sys.argv[1:])

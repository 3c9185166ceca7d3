"""A rank that sums with Gloo, told by its arguments what; it writes the milliseconds of each sum."""

import datetime
import json
import os
import sys
import time

import torch
import torch.distributed as dist

WARM_UP = 3
LIMIT = datetime.timedelta(seconds=60)

rank, world, values, rounds = map(int, sys.argv[1:5])
interface, store = sys.argv[5:]

os.environ["GLOO_SOCKET_IFNAME"] = interface
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=LIMIT)
buffer = torch.randn(values)
sum_ms = []
for _ in range(WARM_UP + rounds):
    dist.barrier()
    start = time.perf_counter()
    dist.all_reduce(buffer)
    sum_ms.append((time.perf_counter() - start) * 1e3)
    # So that values stay as large as they were.
    buffer.div_(world)
dist.destroy_process_group()
print(json.dumps({"pytorch": torch.__version__, "sum_ms": sum_ms[WARM_UP:]}))

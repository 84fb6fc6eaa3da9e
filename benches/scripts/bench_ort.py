#!/usr/bin/env python3
"""Python with ONNX Runtime, as the measured program of the same command line and output as benches/src/bin.

usage: bench_ort.py MODEL INPUT.npz [--output OUT.npz] [--warm N | --budget-ms N] [--threads N]
"""

import json
import sys
import time


def main():
    model, source, *rest = sys.argv[1:]
    flags = dict(zip(rest[::2], rest[1::2]))
    import numpy as np

    feeds = dict(np.load(source))
    started = time.perf_counter()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(flags.get("--threads", 1))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    load_ms = ms_since(started)
    names = [o.name for o in session.get_outputs()]
    started = time.perf_counter()
    outputs = session.run(names, feeds)
    first_run_ms = ms_since(started)
    print("answer", names[0], outputs[0].flat[0], flush=True)
    peak = peak_rss_bytes()
    if "--output" in flags:
        np.savez(flags["--output"], **dict(zip(names, outputs)))
    run_ms = warm(lambda: session.run(names, feeds), int(flags.get("--warm", 0)))
    runs_ns = within(lambda: session.run(names, feeds), int(flags.get("--budget-ms", 0)), first_run_ms)
    report = {"load_ms": load_ms, "first_run_ms": first_run_ms, "run_ms": run_ms, "runs_ns": runs_ns,
              "peak_rss_bytes": peak, "warm_peak_rss_bytes": peak_rss_bytes() if run_ms or runs_ns else None}
    print(json.dumps(report), flush=True)


def warm(run, runs):
    """Median of `runs` timed runs after a few untimed ones, as in benches/src/engine.rs."""
    if not runs:
        return None
    for _ in range(min(max(runs, 3), 10)):
        run()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(ms_since(started))
    return sorted(times)[runs // 2]


def within(run, budget_ms, first_run_ms):
    """Every run until the budget is spent, after untimed ones for a third of it, as in benches/src/engine.rs."""
    started = time.perf_counter()
    while first_run_ms < 1000 and ms_since(started) < budget_ms / 3:
        run()
    times, end = [], time.perf_counter_ns() + int(budget_ms * 1e6)
    while budget_ms and (not times or last < end):
        started = time.perf_counter_ns()
        run()
        last = time.perf_counter_ns()
        times.append(last - started)
    return times


def ms_since(started):
    return (time.perf_counter() - started) * 1e3


def peak_rss_bytes():
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()

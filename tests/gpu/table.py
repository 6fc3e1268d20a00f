"""A short table of tests/gpu/run.sh's results: `table.py RESULTS.jsonl`."""

import json
import sys
from pathlib import Path


def of(value, digits=1, unit=""):
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def share(value):
    return "-" if value is None else f"{100 * value:.0f} %"


def figures(run):
    head = f"{run['model']} {run['weights']}"
    ceilings = run["ceilings"]
    yield (
        f"{head:<24} load {of(run['load_s'], 2)} s, ready {of(run['ready_s'], 2)} s, "
        f"copies {of(ceilings['copy_gb_s'], 0)} GB/s, "
        f"products {of(ceilings['product_tflops'], 0)} TFLOP/s"
    )
    for measured in run["measured"]:
        [(kind, one)] = measured.items()
        if kind == "decode":
            yield (
                f"  decode {one['batch']:>4}: {of(one['step_ms'], 3):>8} ms "
                f"(p99 {of(one['step_p99_ms'], 2)}), {of(one['tokens_per_s'], 0):>6} tok/s, "
                f"host {of(one['host_us'], 0)} us, roof {of(one['roof_ms'], 2)} ms, "
                f"{share(one['share'])}"
            )
        elif kind == "prefill":
            yield (
                f"  prompt {one['prompt']}: {of(one['first_token_ms'])} ms, "
                f"{of(one['tflops'], 2)} TFLOP/s, {share(one['share'])}"
            )
        elif kind == "mixed":
            yield (
                f"  mixed: {one['rows']} rows beside prompts of {one['prompt']}: "
                f"{of(one['between_ms'])} ms (p99 {of(one['between_p99_ms'])}, "
                f"target {of(one['target_ms'], 0)}), "
                f"{of(one['prompt_tokens_per_s'], 0)} prompt tok/s"
            )
        elif kind == "throughput":
            yield (
                f"  load {one['requests']} x {one['input']}/{one['output']}: "
                f"{of(one['output_tokens_per_s'], 0)} tok/s made, {of(one['seconds'])} s, "
                f"{of(one['rows'], 0)} rows, {one['preemptions']} preemptions"
            )
        else:
            yield f"  {one['what']} does not fit: {one['why']}"
    if run["failed"]:
        yield f"  BROKEN OFF: {run['failed']}"


def peer(line):
    what = f"batch {line['batch']:>3}" if "batch" in line else f"prompt {line['prompt']}"
    head = f"transformers {line['version']} {line['way']:<8}{what}: "
    if "left_out" in line:
        return head + f"left out: {line['left_out'][:100]}"
    time_ms = line.get("step_ms", line.get("first_token_ms"))
    return head + f"{of(time_ms, 2)} ms, {of(line['tokens_per_s'], 0)} tok/s"


def rows(lines):
    for line in lines:
        if "check" in line:
            known = {"check", "device", "dtype", "passed", "seconds"}
            rest = ", ".join(f"{name} {line[name]}" for name in line if name not in known)
            yield f"{line['check']} {line['dtype']}: {'ok' if line['passed'] else 'FAILED'}, {rest}"
        elif "bench" in line:
            yield from figures(line)
        elif "peer" in line:
            yield peer(line)
        elif "left_out" in line:
            yield f"{line['part']}: LEFT OUT, {line['left_out']}"
        else:
            ended = {0: "ok", 124: "FAILED: out of time"}.get(line["rc"], f"FAILED: {line['rc']}")
            yield f"[{line['part']}: {ended}, {line['seconds']} s]"


if __name__ == "__main__":
    for text in rows(map(json.loads, Path(sys.argv[1]).read_text().splitlines())):
        print(text)

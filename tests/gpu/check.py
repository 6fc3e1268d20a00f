"""The demo model's answers through `hearth serve` on a device: the tokens that transformers gave in
float32 (tests/data/reference.jsonl.zst), and the share of tests/data/eval.jsonl.zst that is right.

Why over HTTP: the very binary that is shipped is checked, and the machine needs nothing but
Python's own library. One JSON line of figures goes to --json; exit code 1: a bar was missed.

    check.py HEARTH reference|eval --device cuda:0 --dtype float32 [--json FILE]
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DATA = Path(os.environ["HEARTH_GPU_DATA"])
START_S = 120
REQUEST_S = 120
CALLERS = 64
# Two correct computations in float32 differ by less (engine/tests/reference_tokens.rs).
LOGPROB = 2e-4
# Share of the tokens before the first other one, computed in 16 bits.
ROUNDED_SAME = 0.9
# 214 of 223 in transformers, give or take a point (engine/tests/eval.rs).
RIGHT, SPREAD = 96.0, 1.0


class Server:
    """`hearth serve` with the demo model, on a port that the system chose."""

    def __init__(self, binary, device, dtype):
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--model", "demo"]
        command += ["--device", device, "--dtype", dtype]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines = queue.Queue(maxsize=4096)
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        self.banner, deadline = [], time.monotonic() + START_S
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                self.stop()
                sys.exit("hearth did not become ready:\n" + "".join(self.banner))
            self.banner.append(line)
            if line.startswith("ready in "):
                self.url = line.split()[-1]
                return

    def _read(self, lines):
        for line in self.process.stdout:
            # Once the server is ready nobody asks for lines; the pipe must still be drained.
            if not lines.full():
                lines.put(line)
        lines.put(None)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def post(self, path, body):
        body = json.dumps({"model": "demo", **body}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read().decode()}") from error

    def all(self, ask, items):
        with ThreadPoolExecutor(CALLERS) as pool:
            return list(pool.map(lambda item: ask(self, item), items))


def lines_of(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def ask_reference(server, item):
    """Whether the tokens are the same, how many are before the first other one, and the largest
    difference of a log-probability up to there."""
    body = {
        "prompt": item["prompt_ids"], "max_tokens": len(item["output_ids"]), "temperature": 0,
        "ignore_eos": True, "return_token_ids": True, "logprobs": 5,
    }
    choice = server.post("/v1/completions", body)["choices"][0]
    got, want = choice["token_ids"], item["output_ids"]
    pairs = zip(got, want, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(got), len(want)))
    worst = 0.0
    # Greedy: the token made is the best of the five that are stored.
    for step in range(same):
        best = item["top5"][step][0][1]
        worst = max(worst, abs(choice["logprobs"]["token_logprobs"][step] - best))
    return got == want, same, worst


def reference(server, dtype):
    items = lines_of("reference.jsonl")
    # Alone and all at once: other products are used for few rows and for many.
    alone = [ask_reference(server, item) for item in items[:8]]
    crowd = server.all(ask_reference, items)
    figures = {
        "alone": f"{sum(ok for ok, _, _ in alone)} of {len(alone)}",
        "together": f"{sum(ok for ok, _, _ in crowd)} of {len(crowd)}",
        "tokens_same": sum(same for _, same, _ in crowd),
        "tokens": sum(len(item["output_ids"]) for item in items),
        "logprob_error": max(worst for _, _, worst in alone + crowd),
    }
    if dtype == "float32":
        return figures, all(ok for ok, _, _ in alone + crowd) and figures["logprob_error"] < LOGPROB
    # In 16 bits near ties fall the other way, and everything behind them is another text.
    return figures, figures["tokens_same"] >= ROUNDED_SAME * figures["tokens"]


def ask_eval(server, item):
    chat = {"messages": item["messages"], "add_generation_prompt": True}
    if item.get("tools"):
        chat["tools"] = item["tools"]
    ids = server.post("/tokenize", chat)["tokens"]
    body = {"prompt": ids, "max_tokens": item["max_tokens"], "temperature": 0}
    return server.post("/v1/completions", body)["choices"][0]["text"]


def parsed(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def right(item, text):
    """As engine/tests/eval.rs."""
    rule, expected = item["match"], item["expected"]
    if rule == "exact":
        return text == expected
    if rule == "prefix":
        return text.startswith(expected)
    if rule == "json":
        return parsed(text) == expected
    calls = [rest.split("\n</tool_call>") for rest in text.split("<tool_call>\n")[1:]]
    return [parsed(call[0]) for call in calls if len(call) > 1] == expected


def evaluate(server, _dtype):
    items = lines_of("eval.jsonl")
    answers = server.all(ask_eval, items)
    for item, text in zip(items, answers, strict=True):
        if not right(item, text):
            print(f"{item['id']}: {text[:80]!r}, expected {str(item['expected'])[:80]!r}")
    score = sum(right(item, text) for item, text in zip(items, answers, strict=True))
    share = 100.0 * score / len(items)
    figures = {"right": f"{score} of {len(items)}", "share": share}
    return figures, abs(share - RIGHT) <= SPREAD


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("hearth")
    parser.add_argument("what", choices=["reference", "eval"])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    begin = time.monotonic()
    server = Server(args.hearth, args.device, args.dtype)
    try:
        check = {"reference": reference, "eval": evaluate}[args.what]
        figures, passed = check(server, args.dtype)
    finally:
        server.stop()
    line = {
        "check": args.what, "device": args.device, "dtype": args.dtype, "passed": passed,
        "seconds": round(time.monotonic() - begin, 2), **figures,
    }
    text = json.dumps(line)
    print(text)
    if args.json:
        with args.json.open("a") as file:
            file.write(text + "\n")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()

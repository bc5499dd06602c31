"""``python -m Testing.fuzz --seconds 60 --seed 0``: exit code 1, and how to repeat it, for whatever is found."""

from __future__ import annotations

import argparse
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock, Thread

from Testing.fuzz.kinds import KINDS

TIMEOUT = 20.0  # seconds for one file
_START = 240.0  # seconds for the first file of a kind to be made, in a process that may have to start
_ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A process that reads damaged files; started anew where it hung or died."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "Testing.fuzz.worker"]
        self._process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._made: set[str] = set()

    def try_one(self, kind: str, seed: int) -> str:
        """The finding, '' for none."""
        assert self._process.stdin
        self._process.stdin.write((json.dumps({"kind": kind, "seed": seed}) + "\n").encode())
        self._process.stdin.flush()
        if kind not in self._made:
            if self._answer(_START) != {"ready": kind}:
                self.close()
                self.__init__()  # type: ignore[misc]
                return "no sound file of this kind was made"
            self._made.add(kind)
        answer = self._answer(TIMEOUT)
        if answer is not None:
            return str(answer["finding"])
        hung = self._process.poll() is None
        self.close()
        finding = f"hangs: no answer in {TIMEOUT:g} s" if hung else f"dies: exit code {self._process.returncode}"
        self.__init__()  # type: ignore[misc]
        return finding

    def _answer(self, seconds: float) -> dict[str, object] | None:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        if ready and not line:
            self._process.wait()
        return json.loads(line) if line else None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def numbered(first: int, kinds: list[str]) -> Iterator[tuple[str, int]]:
    """All kinds in turn, with ever new seeds."""
    seed = first
    while True:
        yield from ((kind, seed) for kind in kinds)
        seed += 1


def run(seconds: float, seed: int, kinds: list[str], workers: int, most: int) -> tuple[int, list[str]]:
    """How many damaged files were tried, ``most`` of them at the most, and what was found, a text each."""
    asked, lock, found, tried = numbered(seed, kinds), Lock(), [], 0
    pool = [Worker() for _ in range(workers)]
    end = time.monotonic() + seconds

    def work(worker: Worker) -> None:
        nonlocal tried
        while True:
            with lock:
                if (tried and time.monotonic() > end) or tried >= most:
                    break
                kind, number = next(asked)
                tried += 1
            if finding := worker.try_one(kind, number):
                again = f"python -m Testing.fuzz --kind {kind!r} --seconds 0 --seed {number}"
                found.append(f"{kind}, seed {number}: {finding}\n  again: {again}")
        worker.close()

    threads = [Thread(target=work, args=(worker,)) for worker in pool]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tried, found


def main() -> int:
    """The command; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m Testing.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--most", type=int, default=sys.maxsize, help="files to try at the most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(KINDS), help="only this kind of file")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else list(KINDS)
    tried, found = run(options.seconds, options.seed, kinds, options.workers, options.most)
    sys.stdout.writelines(f"{text}\n" for text in found)
    sys.stdout.write(f"{tried} damaged files of {len(kinds)} kinds tried, {len(found)} findings\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

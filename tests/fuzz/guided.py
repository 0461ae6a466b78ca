"""Feeds a reader what a coverage-guided fuzzer thinks of: ``python tests/fuzz/guided.py READER RUNS SEED FOLDER``.

A program of its own, because libFuzzer takes over the process and ends it. The exit status is 0 when all inputs have
been read; else the output has the error, and the input that led to it in hexadecimal.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from random import Random

import atheris
import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["spiral_core.wire", "spiral_core.link", "spiral_server.store"]):
    from fuzz import noise
    from fuzz.decoders import any_of, held_to, readers

MOST_BYTES = 4096
MOST_SECONDS = 5
"""For one input."""
MOST_MEGABYTES = 1024
"""Resident; NumPy, Numba and the instrumented modules take 160 of them before the first input."""


def main(name: str, runs: str, seed: str, folder: str) -> None:
    """Fuzz one reader; does not return."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    work, corpus = Path(folder) / "work", Path(folder) / "corpus"
    work.mkdir()
    corpus.mkdir()
    every = readers(work)
    reader = next(one for one in (*every, any_of(every)) if one.name == name)
    for place, data in enumerate(reader.seeds):
        (corpus / f"seed-{place}").write_bytes(data)

    def read(data: bytes) -> None:
        try:
            held_to(reader, data)
        except BaseException:
            print(f"{reader.name} fails at {data.hex()}", flush=True)
            raise

    def mutate(data: bytes, most: int, number: int) -> bytes:
        # What reads is C for the most part, and tells the fuzzer nothing: half of the time it is told what is sayable.
        random = Random(number)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        if name == "message" and random.random() < 0.5:
            return noise.nearly(random, noise.message(random))[:most]
        return noise.damaged(random, data)[:most]

    bounds = [f"-max_len={MOST_BYTES}", f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}"]
    options = [f"-runs={runs}", f"-seed={seed}", f"-artifact_prefix={folder}/", "-verbosity=1", *bounds]
    atheris.Setup([sys.argv[0], *options, str(corpus)], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

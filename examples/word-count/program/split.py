"""Deals the source files of the archive out to parts of about the same size."""

import tarfile
from contextlib import ExitStack

import conf


def main() -> None:
    results = conf.OUTPUT / conf.SPLIT_RESULTS
    results.mkdir(parents=True, exist_ok=True)
    sizes = [0] * conf.PARTS
    with ExitStack() as stack:
        parts = [stack.enter_context((results / f"{part}.txt").open("wb")) for part in range(conf.PARTS)]
        archive = stack.enter_context(tarfile.open(conf.INPUT / conf.SOURCES))
        for member in archive:
            source = archive.extractfile(member)
            if source is None:
                continue
            smallest = sizes.index(min(sizes))
            # The line end keeps the last word of one file from the first of the next.
            sizes[smallest] += parts[smallest].write(source.read() + b"\n")
    for part, size in enumerate(sizes):
        print(f"part {part}: {size} bytes")


if __name__ == "__main__":
    main()

"""Cuts the log into parts of about the same size, at line ends."""

import conf


def main() -> None:
    log = conf.INPUT / conf.LOG
    results = conf.OUTPUT / conf.SPLIT_RESULTS
    results.mkdir(parents=True, exist_ok=True)
    size = log.stat().st_size
    with log.open("rb") as lines:
        for part in range(conf.PARTS):
            end = size * (part + 1) // conf.PARTS
            written = 0
            with (results / f"{part}.txt").open("wb") as out:
                while lines.tell() < end:
                    line = lines.readline()
                    written += out.write(line)
            print(f"part {part}: {written} bytes")


if __name__ == "__main__":
    main()

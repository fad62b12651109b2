"""The vendor's short forms for environments and mappings, as `-e`, `-r`, `-w` and job.cfg have them."""

import re

from windlass_proto.model.storage import OBJECT_SCHEMES

_NAMED = re.compile(r"\s*[A-Za-z_][A-Za-z0-9_.\-]*\s*[:=]")
_ACCESS = re.compile(r":{1,3}(true|false)$", re.IGNORECASE)
_SCHEME = re.compile(rf"(?:{'|'.join(OBJECT_SCHEMES)})://")


def parse_env(text: str) -> dict[str, str]:
    """`K:V,K2:V2` (or `K=V`); a comma that is not followed by a name belongs to the value."""
    pairs: list[str] = []
    for piece in text.split(","):
        if pairs and not _NAMED.match(piece):
            pairs[-1] += "," + piece
        else:
            pairs.append(piece)
    env: dict[str, str] = {}
    for pair in pairs:
        if not _NAMED.match(pair):
            raise ValueError(f"must be NAME:VALUE, or NAME:VALUE,NAME:VALUE (is {pair!r})")
        name, value = re.split("[:=]", pair, maxsplit=1)
        env[name.strip()] = value
    return env


def parse_mapping(text: str) -> tuple[str, str]:
    """`oss://bucket/dir/:/local` or the other way round -> (object URL, directory)."""
    plain = _ACCESS.sub("", text.strip())
    starts = [match.start() for match in _SCHEME.finditer(plain)]
    if len(starts) != 1:
        raise ValueError(
            f"must join one object URL and one directory, as oss://bucket/dir/:/dir (is {text!r})"
        )
    url, directory = _split(plain, starts[0])
    if not directory or url.endswith("://"):
        raise ValueError(
            f"must join one object URL and one directory, as oss://bucket/dir/:/dir (is {text!r})"
        )
    return url, directory


def parse_mappings(text: str) -> list[tuple[str, str]]:
    """Several of them, separated by commas."""
    return [parse_mapping(piece) for piece in text.split(",") if piece.strip()]


def parse_docker(text: str) -> dict[str, str]:
    """`localhost:5000/tool@oss://bucket/dockers/`: an image, and the registry in object storage with it."""
    image, separator, registry = text.rpartition("@")
    is_url = "://" in registry
    return {"image": image, "registry": registry} if separator and is_url else {"image": text}


def _split(text: str, url_start: int) -> tuple[str, str]:
    if url_start:
        return text[url_start:], text[:url_start].rstrip(":")
    after_scheme = text.index("://") + 3
    url, _, directory = text[after_scheme:].partition(":")
    return text[:after_scheme] + url, directory.lstrip(":")

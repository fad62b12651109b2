"""Archives, good ones and those that nobody should trust."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import zstandard

Add = Callable[[tarfile.TarFile], None]

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def a_member(
    name: str,
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    content: bytes = b"content",
) -> Add:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, link, mode
        data = content if kind == tarfile.REGTYPE else b""
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    return add


def tar_bytes(*members: Add) -> bytes:
    """Not compressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for add in members:
            add(tar)
    return out.getvalue()


def a_tar(path: Path, *members: Add) -> Path:
    """Compressed by gzip."""
    path.write_bytes(gzip.compress(tar_bytes(*members), compresslevel=1, mtime=0))
    return path


def a_zip(path: Path, *members: tuple[str, bytes, int]) -> Path:
    path.write_bytes(zip_bytes(*members))
    return path


def zip_bytes(*members: tuple[str, bytes, int]) -> bytes:
    """Each with its name, content and mode."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, content)
    return out.getvalue()


def hostile_tars(absolute: str) -> dict[str, tuple[list[Add], str]]:
    """The members of each, and what its refusal says; `absolute` is a path that must not come to be."""
    link, hard = tarfile.SYMTYPE, tarfile.LNKTYPE
    return {
        "climbs": ([a_member("../evil")], "'../evil'"),
        "climbs inside": ([a_member("a/../../evil")], "'a/../../evil'"),
        "absolute": ([a_member(absolute)], "absolute"),
        "link out": ([a_member("l", kind=link, link="../../etc")], "'l'"),
        "absolute link": ([a_member("l", kind=link, link="/etc/passwd")], "absolute path"),
        "behind a link": ([a_member("l", kind=link, link="."), a_member("l/evil")], "lies behind the link"),
        "link that climbs through a link": (
            [a_member("a/b/d", kind=link, link="../.."), a_member("a/b/l", kind=link, link="d/..")],
            "'a/b/l'",
        ),
        "hard link out": ([a_member("h", kind=hard, link="../../etc/passwd")], "'../../etc/passwd'"),
        "hard link to a link": (
            [a_member("l", kind=link, link="x"), a_member("h", kind=hard, link="l")],
            "'h'",
        ),
        "character device": ([a_member("dev", kind=tarfile.CHRTYPE)], "'dev': is a device"),
        "block device": ([a_member("dev", kind=tarfile.BLKTYPE)], "'dev': is a device"),
        "fifo": ([a_member("pipe", kind=tarfile.FIFOTYPE)], "'pipe': is a device, a fifo"),
        "set-uid": ([a_member("su", mode=0o4755)], "'su': is set-uid"),
        "set-gid": ([a_member("sg", mode=0o2755)], "'sg': is set-uid or set-gid"),
        "sparse": ([_a_sparse_member], "'sparse': is a sparse file"),
        "negative size": ([_a_member_of_negative_size], ""),
        "long name": ([a_member("n" * 300)], "a name that is too long"),
    }


def _a_sparse_member(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {"GNU.sparse.map": "0,1,1048575,1", "GNU.sparse.size": "1048576"}
    info.size = 2
    tar.format = tarfile.PAX_FORMAT
    tar.addfile(info, io.BytesIO(b"xy"))


def _a_member_of_negative_size(tar: tarfile.TarFile) -> None:
    header = bytearray(tarfile.TarInfo("minus").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xf0\x00"  # base 256: -4096
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    assert tar.fileobj is not None
    tar.fileobj.write(header)


HOSTILE_ZIPS = {
    "climbs": (("../evil", b"x", 0), "'../evil'"),
    "absolute": (("/tmp/windlass-evil", b"x", 0), "absolute"),
    "link out": (("l", b"../../etc/passwd", 0o120777), "leads out"),
    "fifo": (("pipe", b"", 0o010644), "is a device, a fifo"),
    "set-uid": (("su", b"x", 0o104755), "set-uid"),
}


def encrypted_zip() -> bytes:
    data = bytearray(zip_bytes(("secret", b"x", 0)))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def overlapping_zip() -> bytes:
    """Two members of the same bytes: the trick of the zip that becomes petabytes without being nested."""
    data = bytearray(zip_bytes(("aaaa", b"x" * 1000, 0), ("bbbb", b"y" * 1000, 0)))
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = (0).to_bytes(4, "little")
    return bytes(data)


def crowded_zip(entries: int, *, told: int) -> bytes:
    """A directory of so many members, which says that it has `told`."""
    first = zip_bytes(("a", b"", 0))
    at = first.index(b"PK\x01\x02")
    end = first.index(b"PK\x05\x06")
    listed = first[at:end] * entries
    return first[:at] + listed + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, told, told, len(listed), at, 0)


def gzip_bomb(size_bytes: int) -> bytes:
    """A tar of one file of zeros."""
    header = tarfile.TarInfo("zeros")
    header.size = size_bytes
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as packed:
        packed.write(header.tobuf())
        for _ in range(size_bytes >> 20):
            packed.write(bytes(1 << 20))
    return out.getvalue()


def bomb_behind_the_end(size_bytes: int) -> bytes:
    """A good tar, and after its end so many zeros as padding."""
    return gzip.compress(tar_bytes(a_member("a")) + bytes(size_bytes), mtime=0)


def xz_of_huge_window() -> bytes:
    """Its header asks for a dictionary of 4 GiB."""
    data = bytearray(lzma.compress(tar_bytes(a_member("a"))))
    size = (data[12] + 1) * 4  # of the block's header
    where = data.index(b"\x21\x01", 12, 12 + size) + 2
    data[where] = 40
    data[12 + size - 4 : 12 + size] = zlib.crc32(data[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(data)


def zst_of_huge_window() -> bytes:
    """Its header asks for a window of 2 GiB; the content is one block that is not compressed."""
    content = tar_bytes(a_member("a"))
    block = (len(content) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes((0x00, 21 << 3)) + block + content


def zst_bomb(size_bytes: int) -> bytes:
    """A tar of one file of zeros, thirty thousand times smaller."""
    header = tarfile.TarInfo("zeros")
    header.size = size_bytes
    packer = zstandard.ZstdCompressor().compressobj()
    pieces = [packer.compress(header.tobuf())]
    pieces += [packer.compress(bytes(1 << 20)) for _ in range(size_bytes >> 20)]
    return b"".join([*pieces, packer.flush()])

"""Pages of listings: how large, and where the next one begins."""

import base64
import binascii
import json

from windlass_proto.errors import InvalidRequest

DEFAULT_PAGE_SIZE = 100
LARGEST_PAGE_SIZE = 1000


def page_size(asked: int) -> int:
    """0 = the default. Raises InvalidRequest for a size that no page has."""
    if not 0 <= asked <= LARGEST_PAGE_SIZE:
        raise InvalidRequest(f"page_size: must be between 1 and {LARGEST_PAGE_SIZE} (is {asked})")
    return asked or DEFAULT_PAGE_SIZE


def make_token(*position: int) -> str:
    """An opaque text for a place in a listing."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def read_token(token: str, *, length: int) -> tuple[int, ...] | None:
    """The place; None for "". Raises InvalidRequest for what `make_token` never made."""
    if not token:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError, RecursionError):
        position = None
    is_place = isinstance(position, list) and len(position) == length
    if not is_place or not all(type(part) is int and 0 <= part < 2**63 for part in position):
        raise InvalidRequest("page_token: is not one that this coordinator gave; leave it out to start again")
    return tuple(position)

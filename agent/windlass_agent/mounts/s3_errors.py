"""boto3's exceptions, and those of the local disk, as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

from windlass_agent.mounts.base import BadMapping, StorageUnavailable, StoreRefused
from windlass_proto.model.storage import ObjectLocation

USERS_FAULT = frozenset(
    {
        "NoSuchBucket",
        "NoSuchKey",
        "InvalidBucketName",
        "AccessDenied",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "401",
        "403",
        "404",
    }
)
_MISSING = ("404", "NoSuchKey")


@contextmanager
def translated(location: ObjectLocation, *, missing_is: type[Exception] | None = None) -> Iterator[None]:
    """`missing_is` is raised instead where there is no such object."""
    try:
        yield
    except ClientError as problem:
        error = problem.response.get("Error", {})
        if missing_is is not None and error.get("Code") in _MISSING:
            raise missing_is(str(location)) from problem
        sentence = f"{location}: {error.get('Code', '?')}: {error.get('Message', 'no reason given')}"
        if error.get("Code") in USERS_FAULT:
            raise StoreRefused(sentence) from problem
        raise StorageUnavailable(sentence) from problem
    except (ParamValidationError, NoCredentialsError) as problem:
        raise BadMapping(f"{location}: {problem}") from problem
    except BotoCoreError as problem:
        raise StorageUnavailable(f"{location}: {problem}") from problem
    except RecursionError as problem:
        # botocore looks for a bucket's region when a server redirects, and is redirected again.
        raise StorageUnavailable(f"{location}: the server redirects, which is not followed") from problem
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as problem:
        raise BadMapping(f"{location}: an object and a directory have the same name: {problem}") from problem
    except OSError as problem:
        raise StorageUnavailable(f"{location}: on this node: {problem}") from problem

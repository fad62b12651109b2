"""A Ceph gateway as tests of storage use it: as `s3_server.S3Server`, all of it asked through the API."""

from dataclasses import dataclass
from typing import Any

import boto3

from windlass_proto.model.storage import StorageProfile, StorageProfiles


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStore:
    endpoint: str
    access_key: str
    secret: str

    def profile(self, *, secret_key: str = "") -> StorageProfile:
        return StorageProfile(
            endpoint=self.endpoint, access_key=self.access_key, secret_key=secret_key or self.secret
        )

    def profiles(self) -> StorageProfiles:
        return StorageProfiles(by_scheme=dict.fromkeys(("oss", "cos", "s3"), self.profile()))

    def put(self, name: str, content: bytes | str) -> None:
        bucket, _, key = name.partition("/")
        body = content.encode() if isinstance(content, str) else content
        self._client.put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, name: str) -> bytes:
        bucket, _, key = name.partition("/")
        data: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def objects(self, below: str) -> dict[str, bytes]:
        """All that lies in a directory, by name."""
        bucket, _, key = f"{below}/".partition("/")
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return {one[len(key) :]: self.get(f"{bucket}/{one}") for one in keys}

    def remove(self, name: str) -> None:
        bucket, _, key = name.partition("/")
        self._client.delete_object(Bucket=bucket, Key=key)

    def make_bucket(self, name: str) -> None:
        self._client.create_bucket(Bucket=name)

    def remove_bucket(self, name: str) -> None:
        """An empty one."""
        self._client.delete_bucket(Bucket=name)

    @property
    def _client(self) -> Any:  # boto3's, made at run time
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret,
        )

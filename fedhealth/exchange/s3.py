"""An exchange in an S3 bucket."""

from typing import Any, Self
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fedhealth.errors import ConfigError, MissingObjectError, TransportError
from fedhealth.exchange.store import check_key, check_prefix, different_bytes, too_large

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Exchange:
    """Objects in one bucket, below a prefix.

    Guarantees: the same as ``FolderExchange``, but for one: two parties that put
    different bytes at the same instant may both succeed, as not every S3 enforces
    conditional writes. Readers find it, because they take digests from signed lists.
    """

    def __init__(self, client: Any, *, bucket: str, prefix: str = "") -> None:
        """Use ``client`` (boto3, service s3) on ``bucket``; all keys go below ``prefix``."""
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Open ``s3://bucket/prefix``; address and credentials as boto3 finds them.

        Credentials come from ``AWS_ACCESS_KEY_ID`` and its relatives or the shared
        configuration, another endpoint from ``AWS_ENDPOINT_URL_S3``.

        Raises:
          ConfigError: not such a url, or no region or endpoint can be made of the settings.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise ConfigError("an S3 exchange needs a bucket", "write s3://bucket/prefix")
        retries: Any = {"mode": "standard", "max_attempts": 4}
        try:
            client = boto3.client("s3", config=Config(retries=retries, connect_timeout=5, read_timeout=60))
        except (BotoCoreError, ValueError):
            raise ConfigError("the S3 settings are not complete", "set AWS_REGION and credentials") from None
        return cls(client, bucket=parts.netloc, prefix=parts.path)

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key`` (see ``Exchange.put``)."""
        check_key(key)
        try:
            present = self.get(key, max_bytes=len(data))
        except MissingObjectError:
            present = None
        if present is None:
            self._put_new(key, data)
        elif present != data:
            raise different_bytes(key)

    def _put_new(self, key: str, data: bytes) -> None:
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            # 412, 409: another writer was faster, on a store that enforces If-None-Match.
            if error.response.get("Error", {}).get("Code") not in {
                "PreconditionFailed",
                "ConditionalRequestConflict",
            }:
                raise _failed(error) from None
            if self.get(key, max_bytes=len(data)) != data:
                raise different_bytes(key) from None
        except BotoCoreError as error:
            raise _failed(error) from None

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Return the bytes under ``key`` (see ``Exchange.get``)."""
        check_key(key)
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            with answer["Body"] as body:
                data: bytes = body.read() if max_bytes is None else body.read(max_bytes + 1)
        except ClientError as error:
            if _is_missing(error):
                raise MissingObjectError(f"{key} is not on the exchange", "wait for its sender") from None
            raise _failed(error) from None
        except BotoCoreError as error:
            raise _failed(error) from None
        if max_bytes is not None and len(data) > max_bytes:
            raise too_large(key, max_bytes)
        return data

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Return the keys that start with ``prefix``, sorted (see ``Exchange.list``)."""
        check_prefix(prefix)
        pages = self._client.get_paginator("list_objects_v2")
        found: list[str] = []
        try:
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                found.extend(item["Key"] for item in page.get("Contents", ()))
        except (ClientError, BotoCoreError) as error:
            raise _failed(error) from None
        return tuple(sorted(key[len(self._prefix) :] for key in found))

    def exists(self, key: str) -> bool:
        """Tell whether something is under ``key`` (see ``Exchange.exists``)."""
        check_key(key)
        try:
            self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except ClientError as error:
            if _is_missing(error):
                return False
            raise _failed(error) from None
        except BotoCoreError as error:
            raise _failed(error) from None
        return True


def _is_missing(error: ClientError) -> bool:
    return error.response.get("Error", {}).get("Code") in _MISSING


def _failed(error: Exception) -> TransportError:
    code = (
        error.response.get("Error", {}).get("Code")
        if isinstance(error, ClientError)
        else type(error).__name__
    )
    return TransportError(
        f"the S3 exchange failed ({code})", "check the endpoint, the bucket and the credentials"
    )

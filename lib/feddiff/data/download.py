"""One file from its publisher: progress bar, checksum, retries with back-off, resume, atomic write."""

import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

CHUNK = 1 << 16
ATTEMPTS = 5
BACK_OFF_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
PERMANENT = frozenset({400, 401, 403, 404, 405, 410, 451})


def cache_folder() -> Path:
    """Return the folder for downloads: FEDDIFF_CACHE, else ~/.cache/feddiff."""
    return Path(os.environ.get("FEDDIFF_CACHE") or Path.home() / ".cache" / "feddiff").expanduser()


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    attempts: int = ATTEMPTS,
    back_off: float = BACK_OFF_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    progress: bool = True,
) -> Path:
    """Put the file of `url` at `path` and return it; a file that is already there and matches is kept.

    A broken transfer is resumed where it stopped, up to `attempts` times, waiting back_off, 2 back_off, ... seconds.
    The bytes grow in "<path>.part" and are moved into place only once complete and, with `sha256`, verified; a
    complete file with the wrong checksum is deleted. ConnectionError names url and cause, ValueError the checksums.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Notebooks that run side by side want the same file: one downloads, the others wait and find it there.
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path.is_file() and (sha256 is None or digest(path) == sha256)):
            _attempt(url, path, sha256, attempts, back_off, sleep, progress)
    return path


def _attempt(url: str, path: Path, sha256: str | None, attempts: int, back_off: float, sleep, progress: bool) -> None:
    part = path.with_name(path.name + ".part")
    if sha256 is None:
        # Without a checksum nobody would notice a file sewn from two versions.
        part.unlink(missing_ok=True)
    cause = "no attempt was made"
    for attempt in range(attempts):
        if attempt:
            sleep(back_off * 2 ** (attempt - 1))
        try:
            _transfer(url, part, progress)
        except urllib.error.HTTPError as error:
            cause = f"HTTP {error.code} {error.reason}"
            if error.code in PERMANENT:
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            cause = f"{type(error).__name__}: {getattr(error, 'reason', error)}"
        else:
            return _finish(url, part, path, sha256)
    raise ConnectionError(f"could not download {url} ({cause}); try again later")


def digest(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _transfer(url: str, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "feddiff"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            # The part is as long as the file, or longer: it is either complete or wrong, so start anew.
            part.unlink()
            raise ConnectionError("the partial file did not fit the publisher's file") from error
        raise
    with response:
        # A server that ignores Range answers 200 with the whole file: it then replaces the part.
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        length = response.headers.get("Content-Length")
        total = None if length is None else int(length) + (have if resumed else 0)
        bar = tqdm(total=total, initial=have if resumed else 0, unit="B", unit_scale=True, desc=part.stem,
                   disable=not progress, leave=False)
        with bar, open(part, "ab" if resumed else "wb") as handle:
            while chunk := response.read(CHUNK):
                handle.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise ConnectionError(f"the transfer ended after {part.stat().st_size} of {total} bytes")


def _finish(url: str, part: Path, path: Path, sha256: str | None) -> None:
    found = digest(part)
    if sha256 is not None and found != sha256:
        part.unlink()
        raise ValueError(f"{url}: the file has the sha256 {found}, expected {sha256}; the publisher changed it or "
                         "something on the way did")
    os.replace(part, path)

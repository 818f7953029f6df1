"""The keys that requests are let in with: known by their SHA-256 alone, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from service.errors import SettingsError
from service.settings import Settings

GOOD_KEY = re.compile(r"[!-+\--~]{16,256}")  # visible ASCII without the comma that separates keys


class ApiKeys:
    """Keys as they were set; a wrong one takes as long as a right one."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def holder(self, headers: dict[bytes, bytes]) -> str | None:
        """Return a name for the key in `Authorization: Bearer` or `X-API-Key`; None where none is right."""
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        digest = hashlib.sha256(given).digest()
        equal = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest.hex() if any(equal) else None


def load_keys(settings: Settings) -> ApiKeys | None:
    """Read the keys from the settings and from their file; None where there is neither.

    Raises SettingsError for a file that cannot be read, and for no key or a weak one; never with the key.
    """
    if settings.api_keys is None and settings.api_keys_file is None:
        return None
    keys = settings.api_keys.get_secret_value().split(",") if settings.api_keys is not None else []
    if settings.api_keys_file is not None:
        lines = _read(settings.api_keys_file).splitlines()
        keys += [line for line in lines if line.strip() and not line.startswith("#")]
    for place, key in enumerate(keys, 1):
        if not GOOD_KEY.fullmatch(key.strip()):
            wanted = "allowed are 16 to 256 visible ASCII characters but the comma"
            raise SettingsError(f"API key {place} of {len(keys)} is not a key: {wanted}")
    if not keys:
        raise SettingsError(f"COGAN_API_KEYS_FILE = '{settings.api_keys_file}' holds no key")
    return ApiKeys([key.strip() for key in keys])


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"COGAN_API_KEYS_FILE = '{file}' cannot be read: {error}") from error

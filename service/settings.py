"""Settings of the service: environment variables that begin with COGAN_, checked when they are read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    AliasChoices,
    AnyHttpUrl,
    BeforeValidator,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import SettingsError

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
OF_TRAINING = {"COGAN_ACCELERATOR", "COGAN_DATA", "COGAN_PRECISION"}  # COGAN_THREADS is of both
ALIAS = TypeAdapter(Annotated[str, Field(pattern=r"^/[^\s,=]*=/[^\s,=]*$")])
ORIGIN = TypeAdapter(Annotated[str, Field(pattern=r"^https?://[a-zA-Z0-9_.:*\[\]-]+$")])
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")  # of a URL that lacks a slash
HTTP_URL = TypeAdapter(AnyHttpUrl)
AS_SENT = (
    "an origin as browsers send it: small letters, xn--… for others than ASCII, no port 80 or 443, no '/' at its end"
)


def _each(check: Callable[[str], object], allowed: str) -> AfterValidator:
    """Check every item of a comma-separated list by what raises ValueError; `*` is valid, too, but only alone."""

    def check_all(text: str) -> str:
        parts = list(filter(None, map(str.strip, text.split(","))))
        if "*" in parts and len(parts) > 1:
            raise ValueError("'*' allows all, so it must stand alone")
        for part in parts:
            try:
                if part != "*":
                    check(part)
            except ValueError:
                raise ValueError(f"{part!r} is not {allowed}") from None
        return ",".join(parts)

    return AfterValidator(check_all)


def _check_page_origin(text: str) -> None:
    """Raise ValueError for an origin that no page has: origins are compared as they are."""
    if "*" in ORIGIN.validate_python(text) or str(HTTP_URL.validate_python(text)) != f"{text}/":
        raise ValueError


Networks = Annotated[str, _each(ip_network, "an address or a network, such as 10.0.0.0/8")]
Aliases = Annotated[str, _each(ALIAS.validate_python, "a path and a route, such as /ping=/readyz")]
Origins = Annotated[
    str, _each(ORIGIN.validate_python, "an origin in ASCII, such as https://example.com")
]  # or patterns
PageOrigins = Annotated[str, _each(_check_page_origin, AS_SENT)]


OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]  # empty is as if unset


def check_url(text: str | Path) -> str:
    """Return a folder or URL, of a file as fsspec takes it. Raises ValueError for one that is mistyped."""
    text = str(text)
    if not text or text != text.strip():
        raise ValueError("it is empty, or has white space around it; write a folder or a URL")
    if text.startswith("~"):
        raise ValueError("only a shell replaces ~; write the whole path, or ./~… for a folder of this name")
    if typo := SCHEME.match(text):
        raise ValueError(f"it is no URL; write {typo[1]}://…, or ./{typo[1]}:/… for a folder of this name")
    if text.startswith("file://"):
        host, slash, path = text.removeprefix("file://").partition("/")
        if host not in ("", "localhost") or not slash:
            raise ValueError(f"{host!r} is read as a host, allowed is localhost; write file:///… or a folder")
        return unquote(f"file:///{path}")
    return text


def available_cpus(cgroup_limit: Path = CGROUP_LIMIT) -> int:
    """Return the number of processors of this process: its affinity, limited by the container's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup_limit.read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))


class Settings(BaseSettings):
    """Settings of one service; every field is read from COGAN_<FIELD>."""

    model_config = SettingsConfigDict(
        env_prefix="COGAN_", frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of IPv4, :: for IPv6 as well."""
    port: int = Field(default=8000, ge=0, le=65535, validation_alias=AliasChoices("COGAN_PORT", "PORT"))
    """Port to listen on, also read from PORT; 0 takes a free one."""
    models_dir: Annotated[str | Path, AfterValidator(check_url)] = "models"
    """Folder that holds <name>/<version>/model.onnx, or its URL, such as s3://bucket/models."""
    models_cache: OptionalPath = None
    """Folder for the copy of models from a URL, kept for the next start; by default a temporary one."""
    models_refresh_s: float = Field(default=0.0, ge=0, le=86_400)
    """Seconds between looks at a URL for changed models; 0 looks once, at the start."""
    default_model: str | None = None
    """Model of requests that name none; by default the first generator by name."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """cpu or cuda; the service does not start if onnxruntime lacks it."""
    model_control: bool = False
    """Whether /v2/repository may load and unload models; secure it with a key."""
    processes: int = Field(
        default_factory=lambda chosen: 1 if chosen.get("provider") == "cuda" else min(4, available_cpus()), ge=1, le=64
    )
    """Processes that share the port; by default one on a GPU, else the processors up to 4."""
    threads: int = Field(
        default_factory=lambda chosen: (
            2 if chosen.get("provider") == "cuda" else max(1, available_cpus() // chosen.get("processes", 1))
        ),
        ge=1,
        le=256,
    )
    """Worker threads of a process; by default its share of the processors, on a GPU 2."""
    max_batch: int = Field(default_factory=lambda chosen: 16 if chosen.get("provider") == "cuda" else 64, ge=1, le=1024)
    """Largest batch, to which batches on a GPU are padded; by default 64, on a GPU 16."""
    max_queue: int = Field(default=512, ge=1)
    """Rows (latents) that may wait for one model in one process; more get 429."""
    max_pairs: int = Field(default=64, ge=1)
    """Pairs in one /generate response, or rows in one /v2 request."""
    max_frames: int = Field(default=256, ge=2)
    """Frames in one response of /interpolate."""
    max_pixels: int = Field(default=2**25, ge=1)
    """Pixels of one image response, all domains together; GIF counts 8 times, WebP twice."""
    max_body_bytes: int = Field(default=2**20, ge=1)
    """Largest request body in bytes."""
    max_upload_bytes: int = Field(default=2**23, ge=1)
    """Largest body in bytes of /translate, which holds an image."""
    aliases: Aliases | None = None
    """Further paths of routes, separated by commas, such as /ping=/readyz."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Serve /livez, /readyz and /metrics on this port only."""
    api_keys: SecretStr | None = None
    """API keys, separated by commas; if set, all but health, metrics, docs and the studio's page need one."""
    api_keys_file: OptionalPath = None
    """File with more API keys, one a line, read at the start; # begins a comment."""
    rate_limit: float = Field(default=0.0, ge=0)
    """Requests per second of one key or address, in each process; 0 is no limit."""
    rate_burst: int = Field(default=20, ge=1)
    """Requests that a key or address may send at once, in each process."""
    trusted_proxies: Networks = "127.0.0.1"
    """Addresses whose X-Forwarded-For is trusted, separated by commas, or *."""
    cors_origins: PageOrigins | None = None
    """Origins whose pages may send requests, separated by commas, or *."""
    frame_origins: Origins | None = None
    """Origins whose pages may show this service's in a frame, separated by commas, or *."""
    head_timeout_s: float = Field(default=20.0, gt=0, le=3600)
    """Seconds until a connection with incomplete request line or headers is closed."""
    body_timeout_s: float = Field(default=30.0, gt=0, le=3600)
    """Seconds until a request whose body is incomplete gets a 408."""
    send_timeout_s: float = Field(default=30.0, gt=0, le=3600)
    """Seconds without progress in reading a response until its connection is cut."""
    deadline_s: float = Field(default=10.0, gt=0, le=3600)
    """Seconds until a request that is not yet computed gets a 504."""
    stuck_after_s: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds that a batch may run until /livez fails."""
    drain_delay_s: float = Field(default=0.0, ge=0, le=600)
    """Seconds between SIGTERM, when /readyz turns 503, and the end of listening."""
    cache_bytes: int = Field(default=64 * 2**20, ge=0)
    """Bytes of the response cache, of all processes together; 0 turns it off."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of the log lines on stderr."""

    @property
    def routes_by_alias(self) -> dict[str, str]:
        """The routes of `aliases` by their further paths."""
        return dict(one.split("=") for one in (self.aliases or "").split(",") if one)

    @model_validator(mode="after")
    def _settings_fit(self) -> Settings:
        if self.health_port and self.health_port == self.port:
            raise ValueError(
                f"COGAN_HEALTH_PORT = {self.health_port} is {variable_of('port')}; set another port, or none"
            )
        largest = max(self.max_pairs, self.max_frames)
        if self.max_queue < largest:
            raise ValueError(f"COGAN_MAX_QUEUE = {self.max_queue} is less than the largest response, {largest}")
        return self


def load_settings() -> Settings:
    """Return the settings of the environment. Raises SettingsError with one line that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
        raise SettingsError("; ".join(map(_describe, wrong))) from error


def variable_of(field: str) -> str:
    """Return the environment variable that sets a field: COGAN_PORT, or PORT where that alone is set."""
    bare = field.upper()
    return bare if bare in os.environ and f"COGAN_{bare}" not in os.environ else f"COGAN_{bare}"


def unknown_variables() -> list[str]:
    """Return variables that look like a setting and are none."""
    known = {f"COGAN_{name.upper()}" for name in Settings.model_fields} | OF_TRAINING
    return sorted(name for name in os.environ if name.startswith("COGAN_") and name not in known)


def _describe(problem: ErrorDetails) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    field = str(problem["loc"][0]).lower().removeprefix("cogan_")
    about, value = Settings.model_fields[field].description, problem["input"]
    if str(value).startswith("tcp://"):  # Kubernetes names the address of a service `cogan` so
        about = f"{about} Kubernetes has set it: set enableServiceLinks: false"
    return f"{variable_of(field)} = {value!r:.80}: {problem['msg']} ({about})"

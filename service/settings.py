"""Settings of the service: environment variables that begin with COGAN_, checked when they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import SettingsError
from service.setting_types import Networks, Origins

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_cpus(cgroup_limit: Path = CGROUP_LIMIT) -> int:
    """Count the processors that this process may use: its affinity, cut by the container's limit."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup_limit.read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))


class Settings(BaseSettings):
    """What an operator may choose; every field is read from COGAN_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="COGAN_", frozen=True, extra="forbid", populate_by_name=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(
        default=8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("COGAN_PORT", "PORT"),
        description="Port to listen on, also read from PORT; 0 takes a free one.",
    )
    models_dir: Path = Field(
        default=Path("models"), description="Folder that holds <name>/<version>/model.onnx."
    )
    default_model: str | None = Field(
        default=None, description="Model of a request that names none; otherwise the first by name."
    )
    provider: Literal["cpu", "cuda"] = Field(
        default="cpu", description="What onnxruntime computes on; the service does not start without it."
    )
    model_control: bool = Field(
        default=True, description="Whether requests below /v2/repository may load and unload models."
    )
    processes: int = Field(
        default_factory=lambda chosen: 1 if chosen.get("provider") == "cuda" else min(4, available_cpus()),
        ge=1,
        le=64,
        description="Processes that answer at one port; otherwise one on a GPU, else the processors up to 4.",
    )
    threads: int = Field(
        default_factory=lambda chosen: (
            2 if chosen.get("provider") == "cuda" else max(1, available_cpus() // chosen.get("processes", 1))
        ),
        ge=1,
        le=256,
        description="Threads of a process that draw images; otherwise its share of processors, on a GPU 2.",
    )
    max_batch: int = Field(
        default_factory=lambda chosen: 16 if chosen.get("provider") == "cuda" else 64,
        ge=1,
        le=1024,
        description="Most latents in one run, to which a GPU's runs are padded; otherwise 64, on a GPU 16.",
    )
    max_queue: int = Field(
        default=512,
        ge=1,
        description="Most latents that wait for one model in one process; more are refused with 429.",
    )
    max_pairs: int = Field(default=64, ge=1, description="Most pairs in one answer of /generate.")
    max_frames: int = Field(default=256, ge=2, description="Most frames in one answer of /interpolate.")
    max_body_bytes: int = Field(default=2**20, ge=1, description="Largest request body in bytes.")
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Another port for /livez, /readyz and /metrics, which the first then has not.",
    )
    api_keys: SecretStr | None = Field(
        default=None,
        description="Keys separated by commas, one of which every request needs but those for health.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="File of more keys, one a line, read at the start; lines with # are none."
    )
    rate_limit: float = Field(
        default=0.0, ge=0, description="Requests a second of one key, or of one address; 0 is no limit."
    )
    rate_burst: int = Field(
        default=20, ge=1, description="Requests at once of one key or address that has not asked for a while."
    )
    trusted_proxies: Networks = Field(
        default="127.0.0.1", description="Addresses whose X-Forwarded-For is believed, separated by commas."
    )
    cors_origins: Origins | None = Field(
        default=None, description="Origins of pages that may ask, separated by commas; * for all."
    )
    head_timeout_s: float = Field(
        default=20.0,
        gt=0,
        le=3600,
        description="Seconds that a request's head may take to arrive until its connection is closed.",
    )
    body_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Seconds that a request's body may take to arrive until it is answered with 408.",
    )
    send_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Seconds in which a client may take nothing of its answer until its connection is cut.",
    )
    deadline_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Seconds that a request may wait for its images until it is answered with 504.",
    )
    stuck_after_s: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="Seconds that a batch may take or a process be silent; then /livez fails.",
    )
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="Seconds from SIGTERM, when /readyz turns 503, until listening ends.",
    )
    cache_bytes: int = Field(
        default=64 * 2**20,
        ge=0,
        description="Bytes of encoded answers that all processes keep for repeats; 0 keeps none.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level of the log lines on stderr."
    )

    @model_validator(mode="after")
    def _settings_fit(self) -> Settings:
        if self.health_port and self.health_port == self.port:
            raise ValueError(
                f"COGAN_HEALTH_PORT = {self.health_port} is COGAN_PORT: take another, or leave it out"
            )
        largest = max(self.max_pairs, self.max_frames)
        if self.max_queue < largest:
            raise ValueError(f"COGAN_MAX_QUEUE = {self.max_queue} is less than the largest answer, {largest}")
        return self


def load_settings() -> Settings:
    """Read the settings from the environment. Raises SettingsError, in one line that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
        raise SettingsError("; ".join(map(_describe, wrong))) from error


def unknown_variables() -> list[str]:
    """Return what the environment has that looks like a setting and is none; COGAN_DATA is of training."""
    known = {f"COGAN_{name.upper()}" for name in Settings.model_fields} | {"COGAN_DATA"}
    return sorted(name for name in os.environ if name.startswith("COGAN_") and name not in known)


def _describe(problem: ErrorDetails) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    field = str(problem["loc"][0]).lower().removeprefix("cogan_")
    about = Settings.model_fields[field].description
    return f"COGAN_{field.upper()} = {problem['input']!r:.80}: {problem['msg']} ({about})"

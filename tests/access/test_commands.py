"""The commands, as an operator uses them."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.core.management import CommandError, call_command, load_command_class
from django.utils.translation import override

from argus.access import check
from argus.access.management.commands.create_key import moment
from argus.access.models import APIKey
from argus.errors import KEY_REVOKED, ArgusError
from tests.access.factory import make_key, make_plan

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
SHANGHAI = timezone(timedelta(hours=8))


def run(*words: str) -> tuple[str, str]:
    """Standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with override("en"):
        call_command(*words, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def refusal(*words: str) -> str:
    with pytest.raises(CommandError) as caught:
        run(*words)
    return str(caught.value)


def test_create_key_prints_the_key_alone_and_it_works() -> None:
    make_plan(name="desk")
    out, err = run("create_key", "risk desk", "--plan", "desk", "--scopes", "read", "operate", "--networks", "10.0.0.0/8")
    assert re.fullmatch(r"argus_[a-z0-9]{8}_[A-Za-z0-9_-]{43}\n", out)
    assert out.strip() not in err
    assert "shown once" in err
    principal = check.authenticate_sync(out.strip(), "10.1.1.1")
    assert (principal.plan, principal.scopes) == ("desk", {"read", "operate"})


def test_create_key_names_the_plans_there_are() -> None:
    message = refusal("create_key", "x", "--plan", "gold")
    assert message.startswith("There is no plan 'gold'. There are: ")
    assert "standard" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--networks", "10.0.0.1/8"], "networks: 10.0.0.1/8 has bits set to the right of its mask; the network is 10.0.0.0/8."),
        (["--expires", "2020-01-01"], "expires_at: This moment has passed; the key would never work."),
        (["--expires", "soon"], "--expires 'soon' cannot be read: give 12h, 30d, 4w, 2026-12-31 or 2026-12-31T15:00+08:00."),
        (["--expires", "2026-02-30"], "--expires '2026-02-30' cannot be read"),
        (["--expires", "99999999999d"], "--expires '99999999999d' cannot be read"),
    ],
)
def test_create_key_says_what_is_wrong_and_makes_nothing(words: list[str], message: str) -> None:
    assert refusal("create_key", "x", *words).startswith(message)
    assert not APIKey.objects.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("4W", NOW + timedelta(weeks=4)),
        ("2026-12-31", datetime(2027, 1, 1, tzinfo=SHANGHAI)),
        ("2026-12-31T15:00", datetime(2026, 12, 31, 15, tzinfo=SHANGHAI)),
        ("2026-12-31 15:00Z", datetime(2026, 12, 31, 15, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_a_span_the_end_of_a_day_or_a_moment(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("form", ["{0.prefix}", "argus_{0.prefix}"])
def test_revoke_key_ends_a_key(form: str) -> None:
    key, text = make_key()
    assert run("revoke_key", form.format(key))[0] == f"{key} is revoked.\n"
    check.cache.clear()
    with pytest.raises(ArgusError) as caught:
        check.authenticate_sync(text, None)
    assert caught.value.problem is KEY_REVOKED
    assert run("revoke_key", key.prefix)[0] == f"{key} was revoked before.\n"


def test_revoke_key_says_what_it_cannot_find() -> None:
    assert refusal("revoke_key", "abcdefgh").startswith("There is no key with the prefix abcdefgh.")
    assert refusal("revoke_key", "nonsense!").startswith("That is not a prefix")


def test_list_keys_shows_those_that_work_and_with_all_the_others() -> None:
    assert "create_key makes one" in run("list_keys")[1]
    active, text = make_key(name="active one", networks=["10.0.0.0/8"])
    revoked, _ = make_key(name="revoked one")
    run("revoke_key", revoked.prefix)
    out, _ = run("list_keys")
    assert active.prefix in out
    assert "10.0.0.0/8" in out
    assert revoked.prefix not in out
    assert text[-43:] not in out
    out, _ = run("list_keys", "--all")
    assert active.prefix in out
    assert re.search(rf"{revoked.prefix}.*revoked", out)


@pytest.mark.parametrize("name", ["create_key", "revoke_key", "list_keys"])
def test_help_ends_with_examples(name: str) -> None:
    text = load_command_class("argus.access", name).create_parser("manage.py", name).format_help()
    examples: Any = text.partition("examples:\n")[2]
    assert f"\n  manage.py {name}" in "\n" + examples

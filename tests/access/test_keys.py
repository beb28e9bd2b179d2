"""Keys as texts."""

from __future__ import annotations

import hashlib
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.access import keys


def test_a_key_has_a_prefix_and_256_random_bits() -> None:
    secret = keys.new()
    assert re.fullmatch(r"argus_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", secret.text)
    assert secret.text.split("_")[1] == secret.prefix == keys.prefix_of(secret.text)
    assert keys.new().text != secret.text


def test_what_is_stored_is_the_sha256_of_the_text() -> None:
    secret = keys.new()
    assert secret.digest == hashlib.sha256(secret.text.encode()).hexdigest() == keys.digest(secret.text)


def test_a_secret_shows_its_key_in_no_representation() -> None:
    secret = keys.new()
    shown = f"{secret} {secret!r} {secret:} {[secret]} {secret.__rich_repr__()}"
    assert secret.text not in shown
    assert secret.digest not in shown
    assert secret.prefix in shown


@given(st.text())
def test_any_text_has_a_digest_and_hardly_any_is_a_key(text: str) -> None:
    assert len(keys.digest(text)) == 64
    assert keys.prefix_of(text) is None


def test_letters_that_no_key_has_do_not_make_another_key_of_a_text() -> None:
    secret = keys.new()
    assert keys.prefix_of(secret.text[:-1] + "é") is None
    assert keys.digest(secret.text[:-1] + "\ud800") != secret.digest
    assert keys.prefix_of(secret.text + "\n") is None


@pytest.mark.parametrize("form", ["{prefix}", "argus_{prefix}", " {prefix} ", "{text}"])
def test_a_person_may_name_a_key_in_several_ways(form: str) -> None:
    secret = keys.new()
    assert keys.prefix_in(form.format(prefix=secret.prefix, text=secret.text)) == secret.prefix


@pytest.mark.parametrize("words", ["", "argus", "ABCDEFGH", "abcdefg", "argus_abcdefgh_x"])
def test_what_names_no_key_has_no_prefix(words: str) -> None:
    assert keys.prefix_in(words) is None


def test_a_secret_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        keys.new().text = "other"  # type: ignore[misc]
    assert issubclass(keys.Secret, msgspec.Struct)

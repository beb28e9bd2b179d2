"""Signing in, in both languages."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Console, Open, sign_in


@pytest.mark.parametrize(
    ("language", "user", "password", "button", "title"),
    [("zh-CN", "用户名", "密码", "登录", "[模拟数据]"), ("en-US", "Username", "Password", "Log in", "[simulated data]")],
)
def test_the_form_speaks_the_browsers_language(
    open_page: Open, language: str, user: str, password: str, button: str, title: str
) -> None:
    page = open_page("/admin/", language=language, signed_in=False)
    form = page.locator("#login-form").inner_text()
    assert user in form
    assert password in form
    assert button in form
    assert title in page.title()


def test_the_language_can_be_switched_before_and_after_signing_in(open_page: Open, console: Console) -> None:
    page = open_page("/admin/login/", language="zh-CN", signed_in=False)
    page.get_by_role("button", name="English").click()
    page.get_by_role("button", name="Log in").wait_for()
    sign_in(page, console)
    page.get_by_role("heading", name="Overview").wait_for()
    page.get_by_text("admin", exact=True).click()
    page.get_by_role("button", name="简体中文").click()
    page.get_by_role("heading", name="概览").wait_for()


def test_a_wrong_password_is_said(open_page: Open) -> None:
    page = open_page("/admin/login/", language="en-US", signed_in=False)
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", "wrong")
    page.click("#login-form [type=submit]")
    page.get_by_text("Please enter the correct username and password").wait_for()
    assert page.url.endswith("/admin/login/")

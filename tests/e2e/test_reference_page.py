"""The description of the HTTP interface, as people read it in a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess

from playwright.sync_api import Browser, Page

from e2e.cockpit import Cockpit, wait_for


def test_the_reference_lists_every_request_and_asks_nobody_else(page: Page, demo: Cockpit) -> None:
    asked: list[str] = []
    problems: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.context.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    with page.context.expect_page() as opened:
        page.get_by_test_id("reference").click()
    reference = opened.value
    reference.on("pageerror", lambda error: problems.append(str(error)))
    reference.wait_for_load_state()
    assert reference.url == f"{demo.url}/docs"
    assert reference.locator("script").count() == 0

    document = demo.get("/openapi.json")
    told = {(path, method) for path, methods in document["paths"].items() for method in methods}
    sections = reference.locator("main section:has(h2)")
    assert sections.count() == len(told) > 6
    for path, method in told:
        link = reference.locator("nav a").filter(has_text=re.compile(f"^{method.upper()}{re.escape(path)}$"))
        anchor = link.get_attribute("href")
        words = reference.locator(f"section:has(h2{anchor})").inner_text()
        one = document["paths"][path][method]
        for name in (parameter["name"] for parameter in one.get("parameters", [])):
            assert name in words
        for status, answer in one["responses"].items():
            assert f"{status} {answer['description'].split('`')[0].strip()}" in words
        assert ("Body: " in words) == ("requestBody" in one)
        if "requestBody" in one:
            schema = one["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            assert f"Body: {schema.rpartition('/')[2]}" in words
    for name in document["components"]["schemas"]:
        assert reference.locator(f"#schema-{name}").count() == 1
    broken = "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.querySelector(a.hash)).length"
    assert reference.evaluate(broken) == 0

    assert problems == []
    assert all(url.startswith((demo.url, "data:")) for url in asked), asked


def test_the_examples_of_the_reference_run_in_a_shell(chromium: Browser, demo: Cockpit) -> None:
    context = chromium.new_context(extra_http_headers={"Authorization": f"Bearer {demo.token}"})
    page = context.new_page()
    page.goto(f"{demo.url}/docs")
    examples = [words for words in page.locator("main pre").all_inner_texts() if words.startswith("curl ")]
    context.close()
    assert len(examples) > 6
    lives = [next(one for one in examples if "-X POST" in one and one.rstrip().endswith(end)) for end in LIVES]
    trained = demo.run()["id"]
    for words in [one for one in examples if one not in lives]:
        # A revision that has passed would be refused, as it should be.
        done = shell(re.sub(r'"expected_rev": \d+', '"expected_rev": null', words), demo, trained)
        if "-X DELETE" in words:
            assert "is being trained" in done.stdout, (words, done.stdout, done.stderr)
        else:
            assert done.returncode == 0, (words, done.stdout, done.stderr)
    run = ""
    for words, status in zip(lives, ("training", "stopped", "training"), strict=True):
        done = shell(words, demo, run)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        run = json.loads(done.stdout)["run"]
        wait_for(lambda run=run, status=status: standing(demo, run) == (status, status == "training"), 60)


LIVES = ('/api/runs"', '/stop"', '/restart"')
"""Ends of the addresses that start, stop and restart an engine, in the order in which that makes sense."""


def standing(demo: Cockpit, run: str) -> tuple[str, bool]:
    """Give the status of a run, and whether its engine runs."""
    line = next(one for one in demo.get("/api/engines")["engines"] if one["run"] == run)
    return line["status"], line["running"]


def shell(command: str, demo: Cockpit, run: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"{command} --fail-with-body"],
        env={**os.environ, "TOKEN": demo.token, "RUN": run},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_reference_is_for_those_who_show_the_token(chromium: Browser, demo: Cockpit) -> None:
    context = chromium.new_context()
    page = context.new_page()
    answer = page.goto(f"{demo.url}/docs")
    assert answer is not None
    assert (answer.status, "token" in page.inner_text("body")) == (401, True)
    context.close()

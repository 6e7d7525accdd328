"""``make demo ARGS=--stay``: its checks pass, and what it says can be opened is there, alive."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

CHAT = Path(__file__).resolve().parents[2] / "examples" / "chat"


def hear_ctrl_c():
    """In the demo's process: whoever runs the tests in the background has it ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def demo():
    """The demo and what it has printed until it stays."""
    process = subprocess.Popen(
        [sys.executable, CHAT / "demo.py", "--stay", "--messages", "400"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if "join them" in line:
            break
    yield process, "".join(said)
    process.kill()
    process.wait()


def test_the_demo_stays_with_the_pages_it_names_until_ctrl_c(demo, page, screenshot):
    process, said = demo
    assert "FAIL" not in said and said.count("PASS") == 10
    live = re.search(r"http://\S+/live/", said)[0]
    page.goto(live)
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill(re.search(r"operator, password (\S+)", said)[1])
    page.keyboard.press("Enter")
    row = page.get_by_role("row", name="chat.room")
    handled = page.locator('[data-tile="rate"] .figure')
    expect(row).to_be_visible()
    expect(handled).not_to_have_text("0")
    page.wait_for_timeout(5000)  # for charts with something in them
    screenshot(page, "demo-live", whole=False)

    page.goto(re.search(r"(http://\S+:\d+/)\n\s+the chat", said)[1])
    page.get_by_label("Your name").fill("Visitor")
    page.get_by_label("Room").fill("room-0")
    page.keyboard.press("Enter")
    page.get_by_label("Say as").fill("Hello from a browser")
    page.keyboard.press("Enter")
    expect(page.locator("#log li.own")).to_contain_text("Hello from a browser")

    page.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0

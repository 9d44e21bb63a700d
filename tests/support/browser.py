"""Pages in a real browser, Debian's chromium without a window: what a reader sees at a width, measured or as a PNG.

Windows have a least width, so a page is shown in a frame of the width; nothing outside the page is loaded.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_HEIGHT = 900

# what is wrong on the page: pictures that do not show, text that sticks out of the page or of its own box, tall rows,
# short words of a heading or a first cell that are cut in two
_MEASURE = """
const page = frame.contentDocument, view = frame.contentWindow, wrong = [];
const scrolls = e => { for (; e; e = e.parentElement)
  if (['auto', 'scroll'].includes(view.getComputedStyle(e).overflowX)) return true; return false; };
for (const details of page.querySelectorAll('details')) details.open = true;
const images = [...page.images];
for (const image of images)
  if (!image.complete || !image.naturalWidth) wrong.push('picture: ' + image.alt);
const width = page.documentElement.clientWidth;
if (page.documentElement.scrollWidth > width) wrong.push('page is ' + page.documentElement.scrollWidth + ' wide');
const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, range = page.createRange();
  if (!node.textContent.trim() || scrolls(node.parentElement)) continue;
  range.selectNodeContents(node);
  const box = range.getBoundingClientRect();
  if (box.width && (box.right > width + 1 || box.left < -1))
    wrong.push('text: ' + node.textContent.trim().slice(0, 60));
}
for (const cell of page.querySelectorAll('td, th')) {
  if (cell.scrollWidth > cell.clientWidth + 1) wrong.push('cell: ' + cell.textContent.slice(0, 60));
}
for (const row of page.querySelectorAll('tr'))
  if (view.getComputedStyle(row).display === 'table-row' && row.offsetHeight > 160)
    wrong.push('row of ' + row.offsetHeight + ' pixels: ' + row.textContent.slice(0, 60));
for (const cell of page.querySelectorAll('th, td:first-child')) {
  const words = page.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) for (const word of words.currentNode.textContent.matchAll(/[^\\s-]+/g)) {
    const range = page.createRange();
    range.setStart(words.currentNode, word.index);
    range.setEnd(words.currentNode, word.index + word[0].length);
    if (word[0].length <= 12 && range.getClientRects().length > 1) wrong.push('broken word: ' + word[0]);
  }
}
const cards = [...page.querySelectorAll('.wide tr')].filter(r => view.getComputedStyle(r).display === 'block').length;
result = {wrong, images: images.length, cards, height: page.documentElement.scrollHeight};
"""
_FRAME = """<!doctype html><meta charset="utf-8"><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<body><pre id="result"></pre><script>
const frame = document.createElement('iframe');
frame.width = {width}; frame.height = {height};
frame.onload = () => {{
  let result = null;
  try {{ {script} }} catch (error) {{ result = {{wrong: [String(error)]}}; }}
  if (!result) return;
  frame.remove();
  document.getElementById('result').textContent = JSON.stringify(result);
}};
frame.srcdoc = {page};
document.body.prepend(frame);
</script>"""


def need_chromium() -> None:
    """Skip the test, visibly, where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: pages are not tested in a browser (Debian: apt-get install chromium)")


def measure(page: Path, width: int, work: Path) -> dict[str, Any]:
    """The number of pictures and of cards, the height of the page, and `wrong`: what a reader would stumble over."""
    done = _run(_framed(page, width, _HEIGHT, _MEASURE, work), "--dump-dom", work)
    found = re.search(r'<pre id="result">(.*?)</pre>', done, re.DOTALL)
    assert found, done[-2000:]
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured


def screenshot(page: Path, width: int, height: int, dest: Path, work: Path) -> None:
    """A PNG of the top of the page."""
    framed = _framed(page, width, height, "", work)
    _run(framed, f"--screenshot={dest}", work, f"--window-size={max(width, 500)},{height}")


def _framed(page: Path, width: int, height: int, script: str, work: Path) -> Path:
    path = work / f"framed-{width}.html"
    text = json.dumps(page.read_text(encoding="utf-8")).replace("</", "<\\/")
    path.write_text(_FRAME.format(width=width, height=height, page=text, script=script), encoding="utf-8")
    return path


def _run(page: Path, what: str, work: Path, *more: str) -> str:
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        "--virtual-time-budget=20000", f"--user-data-dir={work / 'profile'}", *more, what, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout

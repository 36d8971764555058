"""hydra-exca report: what the page shows in a real browser."""

from __future__ import annotations

import json
import os
import typing as tp
from pathlib import Path

import click.testing
import pytest
from made_cache import MadeCache
from report_cache import HOSTILE, fill

from hydra_exca.cli import main
from hydra_exca.report import page as report_page

if tp.TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
needs_browser = pytest.mark.skipif(not CHROMIUM.exists() and "CI" not in os.environ, reason="needs Debian's chromium")
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def write(folder: Path, cache: Path) -> Path:
    output = folder / "report.html"
    done = click.testing.CliRunner().invoke(main, ["report", str(cache), "-o", str(output)])
    assert done.exit_code == 0, done.output
    return output


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    cache = MadeCache(folder)
    fill(cache)
    return write(folder, cache.path)


@pytest.fixture(scope="module")
def browser() -> tp.Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


class Seen(tp.NamedTuple):
    page: Page
    problems: list[str]
    requests: list[str]

    def column(self, name: str) -> list[str]:
        heads = [text.rstrip(" ↑↓") for text in self.page.locator("#names th").all_inner_texts()]
        script = "(rows, index) => rows.map((row) => row.children[index].textContent)"
        cells: list[str] = self.page.locator("#rows tr[tabindex]").evaluate_all(script, heads.index(name))
        return cells

    def shown(self) -> str:
        return self.page.locator("#shown").inner_text()


@pytest.fixture(scope="module")
def opened(browser: Browser, report: Path) -> Seen:
    """The page, opened once: that takes longest."""
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    found = Seen(page, [], [])
    page.on("pageerror", lambda error: found.problems.append(str(error)))
    page.on("console", lambda message: found.problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(f"file://{report}")
    page.wait_for_selector("body[data-ready]")
    return found


@pytest.fixture
def seen(opened: Seen) -> Seen:
    opened.page.evaluate("table.sort = null; showAll()")
    return opened


@needs_browser
def test_the_page_opens_without_errors_and_asks_for_nothing(seen: Seen) -> None:
    assert seen.problems == []
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:"))] == [seen.page.url]
    assert seen.shown() == "49 of 49 tasks"
    seen.page.wait_for_selector("#plots .plot .main-svg")
    assert seen.page.locator("#plots .plot").count() == 5
    assert seen.page.locator("#lines .scatterlayer .trace").count() == 42


@needs_browser
def test_the_configuration_is_text_also_where_it_is_a_script(seen: Seen) -> None:
    seen.page.locator("#search").fill("<script>")
    assert seen.column("optimizer.name") == [HOSTILE]
    assert seen.page.evaluate("window.hacked") is None
    assert "<script>window.hacked" not in Path(seen.page.url.removeprefix("file://")).read_text()


@needs_browser
def test_a_click_on_a_head_sorts_by_numbers_with_what_is_missing_last(seen: Seen) -> None:
    head = seen.page.locator("#names button", has_text="acc")
    head.click()
    ascending = [float(cell) for cell in seen.column("acc")[:10]]
    assert ascending == sorted(ascending)
    head.click()
    descending = [float(cell) for cell in seen.column("acc")[:10]]
    assert descending == sorted(descending, reverse=True) and descending[0] > ascending[-1]


@needs_browser
@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("lr", ">= 0.01", "25 of 49 tasks"),
        ("lr", "0.001..0.01", "25 of 49 tasks"),
        ("optimizer.name", "sgd", "24 of 49 tasks"),
        ("optimizer.name", "!= sgd", "25 of 49 tasks"),
        ("status", "failed", "6 of 49 tasks"),
    ],
)
def test_a_column_is_filtered_by_text_and_by_comparison(seen: Seen, column: str, text: str, expected: str) -> None:
    seen.page.get_by_label(f"Filter {column}", exact=True).fill(text)
    assert seen.shown() == expected


@needs_browser
def test_a_range_on_a_parallel_axis_filters_all_else(seen: Seen) -> None:
    labels = seen.page.evaluate("byId('parallel').data[0].dimensions.map((dimension) => dimension.label)")
    update = {f"dimensions[{labels.index('width')}].constraintrange": [[60, 70]]}
    seen.page.evaluate("(update) => Plotly.restyle('parallel', update)", update)
    assert set(seen.column("width")) == {"64"} and seen.shown() == "24 of 49 tasks"
    seen.page.wait_for_function("document.querySelectorAll('#lines .scatterlayer .trace').length === 21")
    seen.page.get_by_text("Show all", exact=True).click()
    assert seen.shown() == "49 of 49 tasks"


@needs_browser
def test_a_row_opens_its_details_with_the_command_to_rerun_it_and_escape_closes_them(seen: Seen) -> None:
    row = seen.page.locator("#rows tr[tabindex]").first
    row.focus()
    seen.page.keyboard.press("ArrowDown")
    seen.page.keyboard.press("Enter")
    assert seen.page.locator("#details .command").inner_text().startswith("hydra-exca rerun /")
    assert "optimizer.name" in seen.page.locator("#details").inner_text()
    seen.page.keyboard.press("Escape")
    assert seen.page.locator("#details").is_hidden()
    assert seen.page.evaluate("document.activeElement.dataset.position") == "1"


@needs_browser
def test_failures_are_grouped_and_pictures_are_images(seen: Seen) -> None:
    assert seen.page.locator("#groups").get_by_text("diverged at step").count() >= 1
    sources = seen.page.locator("#pictures img").evaluate_all("(images) => images.map((image) => image.src)")
    assert sources and all(source.startswith("data:image/svg+xml;base64,") for source in sources)


@needs_browser
def test_the_theme_is_that_of_the_system_until_it_is_switched(seen: Seen) -> None:
    theme = "document.documentElement.dataset.theme"
    assert seen.page.evaluate(theme) == "light"
    seen.page.emulate_media(color_scheme="dark")
    seen.page.wait_for_function(f"{theme} === 'dark'")
    seen.page.locator("#theme").click()
    assert seen.page.evaluate(theme) == "light"


@needs_browser
def test_a_narrow_screen_does_not_scroll_sideways(seen: Seen) -> None:
    seen.page.set_viewport_size({"width": 390, "height": 800})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_cache_without_tasks_has_a_report(tmp_path: Path) -> None:
    assert '"rows":[]' in write(tmp_path, MadeCache(tmp_path).path).read_text()


def test_without_plotly_the_command_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    done = click.testing.CliRunner().invoke(main, ["report", "nowhere"])
    assert done.exit_code == 2 and "pip install hydra-exca-launcher[report]" in done.output


def test_json_in_the_page_cannot_end_its_script() -> None:
    text = {"a": "</script><!-- & \u2028"}
    escaped = report_page.as_script_json(text)
    assert not set("<>&\u2028") & set(escaped) and json.loads(escaped) == text

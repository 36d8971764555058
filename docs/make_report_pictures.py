"""Makes the pictures of docs/report.md: python docs/make_report_pictures.py. Needs chromium, and the extra test."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests/support"))
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def main(target: Path) -> None:
    from made_cache import MadeCache
    from report_cache import fill

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        fill(MadeCache(Path(folder)))
        command = [sys.executable, "-m", "hydra_exca.cli", "report", "exca", "-o", "report.html"]
        subprocess.run(command, cwd=folder, check=True)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        for theme, width in (("light", 1200), ("dark", 1200), ("narrow", 390)):
            scheme = "dark" if theme == "dark" else "light"
            page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
            page.on("console", lambda message: print(message.text))
            page.on("pageerror", lambda error: print(error))
            page.goto(f"file://{folder}/report.html")
            page.wait_for_timeout(1500)
            page.screenshot(path=target / f"report-{theme}.png", full_page="--full" in sys.argv)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "pictures")

"""ComfyUI's frontend in headless Chromium, as a user has it: graphs, the queue, the viewers in the nodes."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=1500,1100",
)  # fmt: skip
PATIENCE = 400.0
"""Seconds to wait for anything: tests share their machine."""


def chromium() -> tuple[str, str] | str:
    """Paths of the browser and its driver, or why there is none."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "needs selenium: pip install selenium"
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((found for name in names if name and (found := shutil.which(name))), None)
    driver = shutil.which(os.environ.get("CHROMEDRIVER", "chromedriver"))
    if browser is None or driver is None:
        missing = "Chromium" if browser is None else "its chromedriver"
        return f"needs {missing} on the PATH (Debian and Ubuntu: apt install chromium chromium-driver)"
    return browser, driver


class Browser:
    """One page on one ComfyUI server."""

    def __init__(self, url: str, profile: Path, artefacts: Path, *options: str) -> None:
        from selenium import webdriver

        found = chromium()
        assert not isinstance(found, str), found
        settings = webdriver.ChromeOptions()
        settings.binary_location = found[0]
        for option in (*OPTIONS, f"--user-data-dir={profile}", *options):
            settings.add_argument(option)
        settings.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        prefs = {"download.default_directory": str(profile / "downloads"), "download.prompt_for_download": False}
        settings.add_experimental_option("prefs", prefs)
        self.driver = webdriver.Chrome(settings, webdriver.ChromeService(found[1]))
        self.driver.command_executor.client_config.timeout = int(PATIENCE)
        self.driver.set_script_timeout(PATIENCE)
        self.driver.set_page_load_timeout(PATIENCE)
        self.url, self.artefacts, self.profile = url, artefacts, profile
        self.opened: bool | None = None
        """Whether the page shows Nodes 2.0; None before it was opened."""
        self._log: list[dict[str, Any]] = []

    def close(self) -> None:
        self.driver.quit()

    # JavaScript
    def run(self, body: str, *values: Any) -> Any:
        """The value of an async function's body; `$` holds the values."""
        reply = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1]; const $ = [...arguments].slice(0, -1);"
            "const app = window.comfyAPI?.app?.app, api = window.comfyAPI?.api?.api;"
            f"(async () => {{ {body} }})().then(value => done({{value: value ?? null}}),"
            " error => done({error: String(error?.stack ?? error)}));",
            *values,
        )
        assert "error" not in reply, reply["error"]
        return reply["value"]

    def wait(self, what: str, check: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        """The first true value of `check`."""
        deadline, found = time.monotonic() + timeout, None
        while time.monotonic() < deadline:
            found = check()
            if found:
                return found
            time.sleep(0.1)
        self.screenshot(f"failed-{what}")
        raise AssertionError(f"{what}: not within {timeout:.0f} s; the last was {found!r}")

    # The page
    def open(self) -> None:
        """Load the page, and wait for our nodes."""
        self.driver.get(self.url)
        self.ready()

    def reload(self) -> None:
        self.run("api.__old = true")
        self.driver.refresh()
        self.ready()

    def ready(self) -> None:
        self.wait("frontend", lambda: self.run(
            "return !!(app?.rootGraph && app.canvas && !document.querySelector('#splash-loader')"
            " && window.LiteGraph?.registered_node_types?.DreamerXLPreview && !api.__old)"
        ))  # fmt: skip

    def screenshot(self, name: str) -> None:
        self.artefacts.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(self.artefacts / f"{name}.png"))

    def console(self) -> list[dict[str, Any]]:
        """Everything the page has logged so far."""
        self._log += self.driver.get_log("browser")
        return self._log

    # Graphs
    def load_api(self, graph: dict[str, Any], name: str = "test") -> None:
        """Open an API graph as dropping the file does."""
        self.run("await app.loadApiJson($[0], $[1]);", graph, name)
        self.run("await new Promise(r => setTimeout(r, 300));")

    def queue(self) -> None:
        self.run("await app.queuePrompt(0, 1);")

    def show(self, node: str, scale: float = 1.0) -> None:
        """Bring a node of the open graph into the middle of the window."""
        self.run(
            "const node = app.canvas.graph.getNodeById($[0]), ds = app.canvas.ds; ds.scale = $[1];"
            "const canvas = app.canvas.canvas, width = canvas.clientWidth, height = canvas.clientHeight;"
            "ds.offset[0] = width / 2 / ds.scale - node.pos[0] - node.size[0] / 2;"
            "ds.offset[1] = height / 2 / ds.scale - node.pos[1] - node.size[1] / 2;"
            "app.canvas.setDirty(true, true); await new Promise(r => setTimeout(r, 500));",
            node, scale,
        )  # fmt: skip

    # Viewers
    def viewer(self, node: str, expression: str, *values: Any) -> Any:
        """A JavaScript expression of `panel`, the element of the viewer in a node of the open graph."""
        return self.run(
            "const widget = app.canvas.graph.getNodeById($[0])?.widgets?.find(w => w.name === 'viewer');"
            f"const panel = widget?.element; return panel ? ({expression}) : null;",
            node, *values,
        )  # fmt: skip

    def state(self, node: str) -> str | None:
        return self.viewer(node, "panel.dataset.state")

    def status(self, node: str) -> str:
        return self.viewer(node, "panel.querySelector('.dxl-status').textContent")

    def pixels(self, node: str) -> np.ndarray | None:
        """The viewer's canvas [H, W, 4], or None where there is none."""
        data = self.viewer(node, "panel.querySelector('canvas')?.toDataURL('image/png') ?? null")
        if data is None:
            return None
        return np.asarray(Image.open(BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA"))

    def drag(self, node: str, dx: int, dy: int) -> None:
        """Turn the object with the mouse."""
        from selenium.webdriver import ActionChains

        x, y = self._middle(node, "panel")
        actions = ActionChains(self.driver, duration=60)
        pointer = actions.w3c_actions.pointer_action
        pointer.move_to_location(x, y)
        pointer.pointer_down()
        for i in range(1, 6):
            pointer.move_to_location(x + dx * i // 5, y + dy * i // 5)
        pointer.pointer_up()
        actions.perform()

    def wheel(self, node: str, dy: int) -> None:
        """Zoom with the wheel; negative is nearer."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        origin = ScrollOrigin.from_viewport(*self._middle(node, "panel"))
        ActionChains(self.driver).scroll_from_origin(origin, 0, dy).perform()

    def click(self, node: str, action: str) -> None:
        """One of the viewer's buttons, with the mouse: some things a browser does for a user only."""
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.driver, duration=60)
        actions.w3c_actions.pointer_action.move_to_location(
            *self._middle(node, f"panel.querySelector('[data-action={action}]')")
        )
        actions.w3c_actions.pointer_action.click()
        actions.perform()

    def _middle(self, node: str, element: str) -> tuple[int, int]:
        """Where in the window the middle of an element is."""
        box = f"({element}).getBoundingClientRect()"
        x, y = self.viewer(node, f"(r => [Math.round(r.x + r.width / 2), Math.round(r.y + r.height / 2)])({box})")
        return x, y

    def press(self, node: str, action: str) -> None:
        """One of the viewer's buttons."""
        self.viewer(node, f"panel.querySelector('[data-action={action}]').click()")

"""The app on a scripted engine with 500 containers and 1,000 images: what `app.py lists` measures."""

from __future__ import annotations

from tests.workbench.fake_engine import FakeEngine, FakeLoop, a_container, an_image
from workbench.app import WorkbenchApp


def main() -> None:
    engine = FakeEngine(
        containers=[a_container(f"c-{n:04}", "running" if n % 3 else "exited", f"image-{n % 50}") for n in range(500)],
        images=[an_image(f"registry.example/team/image-{n}:v{n % 7}", n * 100_000) for n in range(1000)],
    )
    WorkbenchApp(engine, FakeLoop(), title="many").run()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

"""Progress of long work: a bar on a terminal, now and then a line elsewhere."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30


class Progress:
    """Says how many of `total` tasks are done. A notebook or a file gets plain lines."""

    def __init__(self, total: int, name: str, shown: bool = True) -> None:
        self.total, self.name, self.shown = total, name, shown
        self.start = self.last_line = time.monotonic()
        self.first_done: int | None = None
        on_terminal = shown and sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=name, unit="task") if on_terminal else None

    def update(self, done: int, accuracy: float | None) -> None:
        """`done` tasks are learned, with this mean accuracy over them, if it was measured."""
        if self.first_done is None:
            self.first_done = done - 1  # a resumed run does not start at 0
        if self.bar is not None:
            if accuracy is not None:
                self.bar.set_postfix(accuracy=f"{accuracy:.2%}", refresh=False)
            self.bar.update(done - self.bar.n)
            if done == self.total:
                self.bar.close()
        elif self.shown:
            self._line(done, accuracy)

    def _line(self, done: int, accuracy: float | None) -> None:
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES and done < self.total:
            return
        self.last_line = now
        elapsed = now - self.start
        left = elapsed / (done - self.first_done) * (self.total - done)
        parts = [f"{self.name}  {done:4d}/{self.total} tasks"]
        parts += [f"mean accuracy {accuracy:.2%}"] if accuracy is not None else []
        parts += [f"{elapsed / 60:.1f} min", f"{left / 60:.1f} min left"]
        print("   ".join(parts), flush=True)

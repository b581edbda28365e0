"""``python -m bench.replay``: compiled where that is possible, then the command line."""

from bench.replay import speed

speed.accelerate()

from bench.replay.command import app  # noqa: E402 - what is compiled has to be found before it is imported

if __name__ == "__main__":
    app()

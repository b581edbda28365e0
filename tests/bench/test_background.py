import asyncio
import threading

import pytest

from bench.controller.background import Background


class Working(Background):
    def __init__(self):
        super().__init__()
        self.started = threading.Event()
        self.ended = False

    async def work(self):
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


class Failing(Background):
    async def work(self):
        raise ValueError("refused")


def test_work_goes_on_until_the_end_of_the_block():
    with Working() as work:
        assert work.started.wait(30)
        work.check()
        assert not work.ended
    assert work.ended


def test_what_went_wrong_is_raised_at_the_end():
    with pytest.raises(ValueError, match="refused"), Failing():
        pass


def test_what_went_wrong_in_the_block_comes_first():
    with pytest.raises(KeyError, match="other"), Failing() as work:  # noqa: PT012 - the block is the point
        work._thread.join(30)
        with pytest.raises(ValueError, match="refused"):
            work.check()
        raise KeyError("other")

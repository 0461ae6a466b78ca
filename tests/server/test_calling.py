"""What threads have finished is told on the event loop: all of it, in order, in few turns."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from spiral_server.calling import Calling


def told_by(threads: int, each: int) -> list[tuple[int, int]]:
    """Finish futures on several threads at once; give what the loop was told."""
    told: list[tuple[int, int]] = []

    async def story() -> None:
        calling = Calling()
        all_told = asyncio.Event()

        def answer(thread: int, number: int, error: BaseException | None) -> None:
            assert (error is None) == (number % 3 > 0)
            told.append((thread, number))
            if len(told) == threads * each:
                all_told.set()

        futures: list[list[Future[None]]] = [[Future() for _ in range(each)] for _ in range(threads)]
        for thread, own in enumerate(futures):
            for number, future in enumerate(own):
                future.add_done_callback(
                    calling.back(lambda error, thread=thread, number=number: answer(thread, number, error))
                )

        def work(own: list[Future[None]]) -> None:
            for number, future in enumerate(own):
                if number % 3:
                    future.set_result(None)
                else:
                    future.set_exception(OSError("no room"))

        workers = [threading.Thread(target=work, args=(own,)) for own in futures]
        for worker in workers:
            worker.start()
        await asyncio.wait_for(all_told.wait(), 30)
        for worker in workers:
            worker.join()

    asyncio.run(story())
    return told


def test_everything_is_told_once_and_in_the_order_of_each_thread() -> None:
    told = told_by(threads=8, each=2000)
    assert sorted(told) == [(thread, number) for thread in range(8) for number in range(2000)]
    for thread in range(8):
        numbers = [number for one, number in told if one == thread]
        assert numbers == sorted(numbers)


def test_what_is_done_in_one_moment_takes_one_turn_and_who_fails_keeps_nothing_back() -> None:
    told: list[int] = []
    complaints: list[object] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        calling = Calling()

        def answer(number: int) -> None:
            told.append(number)
            if number == 3:
                raise ValueError("a mistake of whoever is told")

        futures: list[Future[None]] = [Future() for _ in range(6)]
        for number, future in enumerate(futures):
            future.add_done_callback(calling.back(lambda _, number=number: answer(number)))
            future.set_result(None)
        # One turn for the first three and the one that fails, one for the others.
        for _ in range(3):
            assert len(told) in (0, 4, 6)
            await asyncio.sleep(0)

    asyncio.run(story())
    assert told == [0, 1, 2, 3, 4, 5]
    assert [type(one) for one in complaints] == [ValueError]

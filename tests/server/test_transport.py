"""The moment at which a server stops listening."""

from __future__ import annotations

import asyncio
import socket

from spiral_server.transport import stop_accepting


def test_a_connection_accepted_just_before_the_close_is_not_lost() -> None:
    taken: list[asyncio.StreamWriter] = []

    async def story() -> None:
        server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            # In the second turn from here the connection is accepted, and in the two after that it begins.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await stop_accepting(server.sockets)
            server.close()
            assert len(taken) == 1
            for writer in taken:
                writer.close()
                await writer.wait_closed()

    asyncio.run(story())

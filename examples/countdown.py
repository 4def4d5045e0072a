"""Counts down from the number in the path, then closes. The server speaks first, and on its own.

    wsbridge serve countdown:app --app-dir examples --connector websockets
    wsbridge connect ws://127.0.0.1:8000/countdown/5

`start_ws_connection` puts a bounded queue in front of the channel. `put` waits only while that is full, so the clock
does not wait for the network; leaving the block sends what is queued and closes with 1000.
"""

import asyncio

from wsbridge import Application, Request, SendResult, WebSocketChannel, WebSocketOptions, start_ws_connection

INTERVAL = 0.2  # seconds


async def on_open(channel: WebSocketChannel, request: Request) -> None:
    try:
        start = int(request.path_params["start"])
    except ValueError:
        channel.close(1008, "the path must end with a number")
        return
    async with start_ws_connection(channel, send_buffer=3) as connection:
        for number in range(start, 0, -1):
            if await connection.put(str(number)) is SendResult.CLOSED:
                return  # the peer left; there is nobody to count for
            await asyncio.sleep(INTERVAL)
        await connection.put("lift-off")


app = Application([("/countdown/{start}", WebSocketOptions(on_open=on_open))])

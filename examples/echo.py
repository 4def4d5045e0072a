"""Sends every message back. The smallest application there is.

wsbridge serve echo:app --app-dir examples --connector tornado
wsbridge connect ws://127.0.0.1:8000/echo
"""

from wsbridge import Application, WebSocketChannel, WebSocketOptions


async def on_text(channel: WebSocketChannel, process: None, text: str) -> None:
    await channel.send_text(text)


async def on_binary(channel: WebSocketChannel, process: None, data: bytes) -> None:
    await channel.send_binary(data)


app = Application([("/echo", WebSocketOptions(on_text=on_text, on_binary=on_binary))])

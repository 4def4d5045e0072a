"""GraphQL over WebSocket by `graphql-core`: github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md, complete.

wsbridge serve graphql_ws:app --app-dir examples --connector aiohttp
"""

import asyncio
from collections.abc import AsyncIterator
from inspect import isawaitable
from typing import Any

from graphql import GraphQLError, build_schema, execute, get_operation_ast, parse, subscribe, validate

from wsbridge import Application, MessageStream, Request, json_codec, stream_handler

SCHEMA = build_schema("type Query { hello(name: String!): String! } type Subscription { count(from: Int!): Int! }")


async def count(info: object, **arguments: int) -> AsyncIterator[dict[str, int]]:
    for number in range(arguments["from"], 0, -1):
        yield {"count": number}
        await asyncio.sleep(0.01)


async def results(query: str, variables: Any = None, operationName: Any = None, **more: Any) -> AsyncIterator[Any]:
    try:
        errors = validate(SCHEMA, document := parse(query))
    except GraphQLError as error:
        errors = [error]
    if errors:
        yield "error", {"payload": [error.formatted for error in errors]}
        return
    operation = get_operation_ast(document, operationName)
    run: Any = subscribe if operation and operation.operation.value == "subscription" else execute
    if isawaitable(found := run(SCHEMA, document, ROOT, None, variables, operationName)):
        found = await found
    if isinstance(found, AsyncIterator):
        async for result in found:
            yield "next", {"payload": result.formatted}
    else:
        yield "next", {"payload": found.formatted}
    yield "complete", {}


async def serve(stream: MessageStream[Any], request: Request) -> None:
    async def operate(id: str, asked: dict[str, Any]) -> None:
        async for kind, payload in results(**asked):
            if kind != "next":
                del running[id]
            await stream.send({"id": id, "type": kind, **payload})

    running: dict[str, asyncio.Task[None]] = {}
    init = asyncio.get_running_loop().call_later(3, stream.close, 4408, "Connection initialisation timeout")
    async with asyncio.TaskGroup() as group:
        async for message in stream:
            match message:
                case {"type": "connection_init"} if not init.cancelled():
                    init.cancel()
                    await stream.send({"type": "connection_ack"})
                case {"type": "connection_init"}:
                    stream.close(4429, "Too many initialisation requests")
                case {"type": "subscribe"} if not init.cancelled():
                    stream.close(4401, "Unauthorized")
                case {"type": "subscribe", "id": str(id)} if id in running:
                    stream.close(4409, f"Subscriber for {id} already exists")
                case {"type": "subscribe", "id": str(id), "payload": {"query": str()} as asked}:
                    running[id] = group.create_task(operate(id, asked))
                case {"type": "complete", "id": str(id)} if id in running:
                    running.pop(id).cancel()
                case {"type": "ping"}:
                    await stream.send({"type": "pong"})
                case {"type": "pong"} | {"type": "complete", "id": str()}:
                    pass
                case _:
                    stream.close(4400, "Invalid message")


ROOT = {"hello": lambda info, name: f"Hello, {name}!", "count": count}
options = stream_handler(serve, codec=json_codec(4400), subprotocols=["graphql-transport-ws"], cancel_on_close=True)
app = Application([("/graphql", options)])

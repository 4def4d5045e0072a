// Asks examples/graphql_ws.py by the client of the npm package graphql-ws, then breaks each rule of the protocol once.
// Usage: node client.js ws://127.0.0.1:8000/graphql; prints what came, as one line of JSON.
import { createClient, MessageType } from "graphql-ws";
import WebSocket from "ws";

const url = process.argv[2];

function ask(client, request) {
  return new Promise((resolve, reject) => {
    const results = [];
    client.subscribe(request, {
      next: (result) => results.push(result.data ?? result.errors[0].message),
      error: (error) => (Array.isArray(error) ? resolve([`error: ${error[0].message}`]) : reject(error)),
      complete: () => resolve(results),
    });
  });
}

async function conversation() {
  const client = createClient({ url, webSocketImpl: WebSocket, lazy: false, keepAlive: 50 });
  const pong = new Promise((resolve) => client.on("pong", (received) => received && resolve("pong")));
  const hello = (name) => ({ query: "query($name: String!) { hello(name: $name) }", variables: { name } });
  const asked = await Promise.all([
    ask(client, hello("Ada")),
    ask(client, { query: "subscription { count(from: 3) }" }),
    ask(client, { query: "subscription { count(from: 2) }" }),
    ask(client, { query: "{ nothing }" }),
    ask(client, { query: "{" }),
  ]);
  const left = client.iterate({ query: "subscription { count(from: 1000000) }" });
  const first = (await left.next()).value.data; // then no more of it, which sends a complete
  await left.return();
  const later = await ask(client, hello("Grace"));
  const pinged = await pong;
  await client.dispose();
  return { asked, first, later, pinged };
}

// Sends messages over a bare WebSocket, each when its turn has come; resolves to the code and reason of the close.
function violate(messages, protocols = ["graphql-transport-ws"]) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols);
    socket.on("error", reject);
    socket.on("open", () => messages.forEach((message) => socket.send(message)));
    socket.on("close", (code, reason) => resolve([code, String(reason)]));
  });
}

const init = JSON.stringify({ type: MessageType.ConnectionInit });
const subscribe = JSON.stringify({
  id: "1",
  type: MessageType.Subscribe,
  payload: { query: "subscription { count(from: 1000000) }" },
});

console.log(
  JSON.stringify({
    ...(await conversation()),
    violations: await Promise.all([
      violate([init, "no JSON"]),
      violate([init, JSON.stringify({ type: "unknown" })]),
      violate([init, Buffer.from("{}")]),
      violate([subscribe]),
      violate([]),
      violate([init, subscribe, subscribe]),
      violate([init, init]),
    ]),
  }),
);

// The reference application of wsbridge's conformance suite (docs/reference-app.md), on Node's `ws`.
//
//   npm ci && node server.js 8000
//   wsbridge conformance ws://127.0.0.1:8000

import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocketServer } from "ws";

const MAX_SIZE = 1024 * 1024; // bytes: the largest message
const FLOOD_SIZE = 64 * 1024; // bytes: each message of /flood
const SUBPROTOCOLS = ["wsbridge.v2", "wsbridge.v1"]; // the preferred first

/** Send, and wait until it is written: a peer that does not read holds the sender back. */
const send = (socket, data, options = {}) =>
  new Promise((resolve) => socket.send(data, options, (error) => resolve(!error)));

const echo = (socket) => socket.on("message", (data, binary) => socket.send(data, { binary }));

/** What each route does with a socket that has opened; `rest` is what follows its name in the path. */
const routes = {
  echo,
  reverse: (socket) =>
    socket.on("message", (data, binary) =>
      socket.send(binary ? Buffer.from(data).reverse() : [...data.toString()].reverse().join("")),
    ),
  async countdown(socket, rest) {
    for (let number = Number(rest); number > 0; number -= 1) await send(socket, String(number));
    socket.close(1000, "done");
  },
  close: (socket, rest, url) => socket.close(Number(rest), url.searchParams.get("text") ?? ""),
  subprotocols(socket) {
    socket.send(socket.protocol);
    echo(socket);
  },
  headers(socket, rest, url, request) {
    const seen = { "x-probe": [], "x-other": [] };
    for (let index = 0; index < request.rawHeaders.length; index += 2) {
      seen[request.rawHeaders[index].toLowerCase()]?.push(request.rawHeaders[index + 1]);
    }
    socket.send(JSON.stringify(seen));
  },
  async flood(socket, rest) {
    const message = Buffer.alloc(FLOOD_SIZE);
    for (let count = Number(rest); count > 0; count -= 1) if (!(await send(socket, message))) return;
    socket.close(1000, "done");
  },
  slow(socket) {
    let before = Promise.resolve(); // one after another
    socket.on("message", (data) => {
      before = before.then(() => sleep(500)).then(() => send(socket, data.toString()));
    });
  },
};

/** The routes whose path goes on after their name. */
const WITH_REST = new Set(["countdown", "close", "flood"]);

const servers = Object.fromEntries(
  Object.keys(routes).map((name) => [
    name,
    new WebSocketServer({
      noServer: true,
      maxPayload: MAX_SIZE,
      allowSynchronousEvents: false,
      handleProtocols: (offered) =>
        name === "subprotocols" ? (SUBPROTOCOLS.find((known) => offered.has(known)) ?? false) : false,
    }),
  ]),
);
servers.headers.on("headers", (lines) => lines.push("X-Answer: one", "X-Answer: two"));

const refusal = (status, body = "", headers = []) =>
  [`HTTP/1.1 ${status} Refused`, "Connection: close", `Content-Length: ${Buffer.byteLength(body)}`, ...headers]
    .concat("", body)
    .join("\r\n");

/** Whether the request names its host once, as HTTP/1.1 asks; Node does not insist on it for an upgrade. */
const hasHost = ({ rawHeaders }) =>
  rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === "host").length === 1;

/** Whether a page of another host asks: its origin is not the request's own host and port. */
const isForeign = ({ headers: { origin, host } }) =>
  origin !== undefined && origin.toLowerCase().replace(/^https?:\/\//, "") !== host.toLowerCase();

const find = (request) => {
  const url = new URL(request.url, "http://localhost");
  const [, name, rest, ...more] = url.pathname.split("/");
  if (more.length > 0 || (rest !== undefined) !== (WITH_REST.has(name) || name === "reject")) return {};
  return { url, name, rest };
};

const http = createServer((request, response) => {
  const { name, rest } = find(request);
  if (name === "reject") response.writeHead(Number(rest), ["X-Refused", "a", "X-Refused", "b"]).end("refused\n");
  else if (!Object.hasOwn(routes, name ?? "")) response.writeHead(404).end();
  else response.writeHead(426, { Upgrade: "websocket", Connection: "Upgrade" }).end();
});

http.on("upgrade", (request, stream, head) => {
  stream.on("error", () => stream.destroy());
  const { url, name, rest } = find(request);
  if (name === "reject") stream.end(refusal(rest, "refused\n", ["X-Refused: a", "X-Refused: b"]));
  else if (!Object.hasOwn(routes, name ?? "")) stream.end(refusal(404));
  else if (request.httpVersion !== "1.1") stream.end(refusal(426, "", ["Upgrade: websocket"])); // ws takes any
  else if (!hasHost(request)) stream.end(refusal(400));
  else if (isForeign(request)) stream.end(refusal(403));
  else {
    servers[name].handleUpgrade(request, stream, head, (socket) => {
      socket.on("error", () => {}); // ws closes with the code of what was wrong
      routes[name](socket, rest, url, request);
    });
  }
});

http.listen(Number(process.argv[2] ?? 8000), "127.0.0.1", () => {
  console.log(`listening on ws://127.0.0.1:${http.address().port}`);
});

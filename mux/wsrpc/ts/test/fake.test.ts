// What the transport does when something goes wrong, by the clock and frame by frame.
import assert from "node:assert/strict";
import { type TestContext, afterEach, before, beforeEach, test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createAsyncIterable, createWritableIterable } from "@connectrpc/connect/protocol";
import { type ConnectionState, type GrpcWsTransportOptions, createGrpcWsTransport } from "oneport-grpc-ws";
import { EchoService } from "../build/gen/echo/echo_pb.js";
import { FakeWebSocket, last, settle } from "./fake.js";
import { unhex, vectors } from "./vectors.js";

const unhandled: unknown[] = [];
process.on("unhandledRejection", (reason) => unhandled.push(reason));

// The encoding in JSON is loaded by the first call, which may take longer than settle waits.
before(async () => {
  const transport = createGrpcWsTransport({ baseUrl: "http://a", WebSocket: FakeWebSocket, useBinaryFormat: false });
  outcome(createClient(EchoService, transport).echo({}));
  while (!FakeWebSocket.made.length) await settle();
  transport.close();
});

beforeEach(() => (FakeWebSocket.made = []));

afterEach(async () => {
  await settle();
  assert.deepEqual(unhandled, [], "unhandled rejections");
});

// setup mocks the clock, and makes a transport in JSON.
async function setup(t: TestContext, options: Partial<GrpcWsTransportOptions> = {}) {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  t.mock.method(Math, "random", () => 0.5);
  const states: string[] = [];
  const transport = createGrpcWsTransport({
    baseUrl: "https://example.com/api/",
    WebSocket: FakeWebSocket,
    useBinaryFormat: false,
    onStateChange: (state, reason) => states.push(reason ? `${state}: ${reason}` : state),
    ...options,
  });
  t.after(() => transport.close());
  const tick = async (ms: number) => {
    t.mock.timers.tick(ms);
    await settle();
  };
  return { transport, states, tick, client: createClient(EchoService, transport) };
}

// outcome is how a call has ended, or undefined.
function outcome(call: Promise<unknown>) {
  const o: { error?: ConnectError; value?: unknown } = {};
  call.then(
    (value) => (o.value = value),
    (error: unknown) => (o.error = ConnectError.from(error)),
  );
  return o;
}

const codeOf = (o: { error?: ConnectError }) => o.error && Code[o.error.code];

async function all<T>(answers: AsyncIterable<T>) {
  const list: T[] = [];
  for await (const answer of answers) list.push(answer);
  return list;
}

test("the first call connects, and is told of no sooner than the server has said hello", async (t) => {
  const { client, states, transport } = await setup(t);
  assert.equal(transport.state, "idle");
  const call = outcome(client.echo({ message: "a" }, { timeoutMs: 1500 }));
  await settle();
  const ws = last(1);
  assert.equal(ws.url, "wss://example.com/api/grpc-ws");
  assert.equal(ws.protocols, "grpc-ws.v1");
  assert.equal(ws.binaryType, "arraybuffer");
  ws.onopen?.({});
  await settle();
  assert.deepEqual(ws.sent, [{ hello: { window: 65536, maxMessage: 4 << 20 } }]);
  t.mock.timers.tick(400);
  await ws.receive({ hello: {} });
  const [open] = ws.of(1);
  assert.deepEqual(open?.open, { method: "/echo.v1.EchoService/Echo", metadata: {}, timeoutMs: 1100 });
  assert.equal(String(Buffer.from(open!.message!)), '{"message":"a"}');
  await ws.receive({ call: 1, header: { metadata: { h: ["1"] } }, message: { message: "a" }, end: { trailer: { t: ["2"] } } });
  assert.equal((call.value as { message: string }).message, "a");
  assert.deepEqual(states, ["connecting", "ready"]);
});

test("attempts to connect come at growing times, and each fails the calls that wait for it", async (t) => {
  const { client, states, tick } = await setup(t);
  let call = outcome(client.echo({}));
  await settle();
  let made = 1;
  for (const delay of [1000, 1600, 2560, 4096, 6553.6, 10485.76, 16777.216, 26843.5456, 30000, 30000]) {
    await last(made).end(1006);
    assert.equal(codeOf(call), "Unavailable");
    assert.match(call.error!.rawMessage, /^wss:\/\/example\.com\/api\/grpc-ws closed: 1006/);
    call = outcome(client.echo({}));
    await tick(Math.floor(delay) - 1);
    last(made);
    assert.deepEqual(call, {});
    await tick(2);
    last(++made);
  }
  const lost = "waiting: wss://example.com/api/grpc-ws closed: 1006 ";
  assert.deepEqual(states.slice(0, 4), ["connecting", lost, "connecting", lost]);
  await last(made).open();
  await last(made).receive({ call: 1, message: {}, end: {} });
  assert.ok(call.value);
});

test("the times differ by chance, a fifth either way", async (t) => {
  for (const [random, delay] of [
    [0, 800],
    [0.999999, 1199],
  ] as const) {
    await t.test(`${random}`, async (t) => {
      const { client, tick } = await setup(t);
      t.mock.method(Math, "random", () => random);
      FakeWebSocket.made = [];
      outcome(client.echo({}));
      await settle();
      await last(1).end(1006);
      await tick(delay - 1);
      last(1);
      await tick(2);
      last(2);
    });
  }
});

// By the table of the protocol: the status of calls, and when the next attempt is made if
// the socket has lived for long, and if not.
const closeCodes: [code: number, status: keyof typeof Code, old: number, young: number][] = [
  [1000, "Canceled", 0, 1000],
  [1001, "Unavailable", 0, 1000],
  [1002, "Internal", 1000, 1000],
  [1003, "Internal", 1000, 1000],
  [1005, "Unavailable", 0, 1000],
  [1006, "Unavailable", 0, 1000],
  [1007, "Internal", 1000, 1000],
  [1008, "ResourceExhausted", 1000, 1000],
  [1009, "ResourceExhausted", 1000, 1000],
  [1011, "Internal", 1000, 1000],
  [1012, "Unavailable", 0, 1000],
  [1013, "Unavailable", 5000, 5000],
  [4401, "Unauthenticated", 1000, 1000],
  [4403, "PermissionDenied", 1000, 1000],
  [4408, "Unavailable", 0, 1000],
];
for (const [code, status, old, young] of closeCodes) {
  for (const [age, delay] of [
    [2000, old],
    [999, young],
  ] as const) {
    test(`close code ${code} after ${age} ms`, async (t) => {
      const { client, tick } = await setup(t);
      const call = outcome(all(client.converse(createWritableIterable())));
      await settle();
      await last(1).open();
      await tick(age);
      await last(1).end(code, "why");
      assert.equal(codeOf(call), status);
      assert.match(call.error!.rawMessage, new RegExp(`${code} why`));
      if (delay) await tick(delay - 1);
      last(1);
      await tick(1);
      last(2);
    });
  }
}

test("an error of WebSocket without a close ends the attempt", async (t) => {
  const { client } = await setup(t);
  const call = outcome(client.echo({}));
  await settle();
  last(1).onerror?.({});
  await settle();
  assert.equal(codeOf(call), "Unavailable");
});

test("a server that goes away keeps the calls that it has begun", async (t) => {
  const { client, tick, states } = await setup(t);
  const first = outcome(client.echo({ message: "1" }));
  const second = outcome(client.echo({ message: "2" }));
  await settle();
  const old = last(1);
  await old.open();
  await tick(1000);
  await old.receive({ goAway: { lastCall: 1, reason: "bye" } });
  assert.deepEqual(first, {});
  assert.equal(codeOf(second), "Unavailable");
  assert.match(second.error!.rawMessage, /may be made again/);
  assert.deepEqual(old.of(2).filter((f) => f.cancel), []);
  const third = outcome(client.echo({ message: "3" }));
  await tick(0);
  await last(2).open();
  assert.equal(last(2).of(1).length, 1);
  assert.equal(old.closed, undefined);
  await old.receive({ call: 1, message: { message: "1" }, end: {} });
  assert.ok(first.value);
  assert.equal(old.closed, 1000);
  await last(2).receive({ call: 1, message: {}, end: {} });
  assert.ok(third.value);
  assert.deepEqual(states, ["connecting", "ready", "waiting: going away: bye", "connecting", "ready"]);
});

// What no server may send, and how the client ends the socket then.
const breaches: [name: string, frame: object | string, close: number, status: keyof typeof Code][] = [
  ["no frame", "{", 4007, "Internal"],
  ["a frame of another type", '{"call":"1"}', 4007, "Internal"],
  ["a header that is no base64", { call: 1, header: { metadata: { "a-bin": ["!"] } } }, 4007, "Internal"],
  ["a frame too large", { call: 1, future: "x".repeat(65536) }, 4009, "ResourceExhausted"],
  ["a message too large", { call: 1, message: { message: "x".repeat((4 << 20) + 65536) } }, 4009, "ResourceExhausted"],
  ["open", { call: 1, open: { method: "a/b" } }, 4002, "Internal"],
  ["cancel", { call: 1, cancel: true }, 4002, "Internal"],
  ["half-close", { call: 1, halfClose: true }, 4002, "Internal"],
  ["a call that was not opened", { call: 2, message: {} }, 4002, "Internal"],
  ["a message of no call", { message: {} }, 4002, "Internal"],
];
for (const [name, frame, close, status] of breaches) {
  test(`a server that sends ${name}`, async (t) => {
    const { client } = await setup(t);
    const call = outcome(client.echo({}));
    await settle();
    await last(1).open();
    await last(1).receive(frame);
    assert.equal(last(1).closed, close);
    assert.equal(codeOf(call), status);
  });
}

// The codes of the vectors are those of a peer that may send any.
for (const { name, text, binary, close } of vectors("malformed.json")) {
  test(`a server that sends no frame: ${name}, ${text === undefined ? "binary" : "text"}`, async (t) => {
    const { client } = await setup(t, { useBinaryFormat: text === undefined });
    const call = outcome(client.echo({}));
    await settle();
    last(1).onopen?.({});
    await (text === undefined ? last(1).receiveBinary({ hello: { maxCalls: 256 } }) : last(1).receive({ hello: { maxCalls: 256 } }));
    assert.equal(last(1).of(1).length, 1);
    assert.equal(last(1).closed, undefined);
    last(1).onmessage?.({ data: text ?? unhex(binary!) });
    await settle();
    assert.equal(last(1).closed, 3000 + close!);
    assert.equal(codeOf(call), "Internal");
  });
}

// What is wrong with a call ends that call alone.
const answer = { call: 1, message: {} };
const wrong: [name: string, method: "echo" | "expand" | "collect", frames: object[], status: keyof typeof Code][] = [
  ["a second header", "expand", [{ call: 1, header: {} }, { call: 1, header: {} }], "Internal"],
  ["a header after a message", "expand", [answer, { call: 1, header: {} }], "Internal"],
  ["a second answer", "echo", [answer, answer], "Internal"],
  ["a second answer to a stream", "collect", [answer, answer], "Internal"],
  ["no answer", "echo", [{ call: 1, end: {} }], "Internal"],
  ["no answer to a stream", "collect", [{ call: 1, end: {} }], "Internal"],
  ["an answer that is not of the type", "echo", [{ call: 1, message: { message: 1 }, end: {} }], "Internal"],
  ["too much credit", "echo", [{ call: 1, credit: 2 ** 31 - 1 }], "ResourceExhausted"],
  ["a status that is none", "echo", [{ call: 1, end: { code: 17 } }], "Unknown"],
];
for (const [name, method, frames, status] of wrong) {
  test(`a call that gets ${name}`, async (t) => {
    const { client } = await setup(t);
    const calls = { echo: () => client.echo({}), expand: () => all(client.expand({})), collect: () => client.collect(createWritableIterable()) };
    const call = outcome(calls[method]());
    await settle();
    await last(1).open();
    for (const frame of frames) await last(1).receive(frame);
    assert.equal(codeOf(call), status);
    const ended = frames.some((f) => "end" in f);
    assert.equal(last(1).of(1).some((f) => f.cancel), !ended, "cancel");
    assert.equal(last(1).closed, undefined);
  });
}

test("a message without credit ends its call, one with the last of it does not", async (t) => {
  const { client } = await setup(t, { useBinaryFormat: true, windowBytes: 100 });
  const call = outcome(all(client.expand({})));
  await settle();
  const ws = last(1);
  ws.onopen?.({});
  await ws.receiveBinary({ hello: {} });
  const answers = client.expand({})[Symbol.asyncIterator]();
  await settle();
  // Nobody reads the second call. Each message costs its length and 16, of 100.
  for (const size of [67, 0, 0, 0]) {
    assert.equal(ws.of(2).some((f) => f.cancel), false);
    await ws.receiveBinary({ call: 2, message: size ? new Uint8Array([10, size - 2, ...new Uint8Array(size - 2)]) : new Uint8Array() });
  }
  assert.equal(ws.of(2).some((f) => f.cancel), true);
  assert.deepEqual(call, {});
  void answers;
});

test("an answer above readMaxBytes ends its call, one of that size does not", async (t) => {
  const readMaxBytes = 100;
  for (const useBinaryFormat of [true, false]) {
    await t.test(`useBinaryFormat: ${useBinaryFormat}`, async (t) => {
      FakeWebSocket.made = [];
      const { client } = await setup(t, { readMaxBytes, useBinaryFormat });
      for (const [number, bytes] of [[1, readMaxBytes], [2, readMaxBytes + 1]] as const) {
        const call = outcome(client.echo({}));
        await settle();
        const ws = last(1);
        const length = bytes - (useBinaryFormat ? 2 : '{"message":""}'.length);
        const give = (frame: object) => (useBinaryFormat ? ws.receiveBinary(frame) : ws.receive(frame));
        if (number == 1) await give({ hello: {} });
        const text = "x".repeat(length);
        await give({ call: number, message: useBinaryFormat ? new Uint8Array([10, length, ...Buffer.from(text)]) : { message: text }, end: {} });
        if (bytes > readMaxBytes) assert.equal(codeOf(call), "ResourceExhausted");
        else assert.equal((call.value as { message: string }).message, text);
        assert.equal(ws.closed, undefined);
      }
    });
  }
});

test("credit is given back when half of the window is taken, and not for what waits", async (t) => {
  const { transport } = await setup(t, { windowBytes: 100 });
  const response = transport.stream(EchoService.method.expand, undefined, undefined, undefined, createAsyncIterable([{}]));
  await settle();
  await last(1).open();
  await last(1).receive({ call: 1, header: { metadata: { early: ["1"] } } });
  // The header is there before an answer is.
  const { header, message: answers } = await response;
  assert.equal(header.get("early"), "1");
  for (let i = 0; i < 3; i++) await last(1).receive({ call: 1, message: { message: "ab" } }); // 16 + 16 bytes each
  const credits = () => last(1).sent.flatMap((f) => f.credit ?? []);
  const it = answers[Symbol.asyncIterator]();
  await it.next();
  assert.deepEqual(credits(), []);
  await it.next();
  assert.deepEqual(credits(), [64]);
});

test("requests wait for credit, and for room in the socket", async (t) => {
  const { client, tick } = await setup(t);
  const requests = createWritableIterable<{ message: string }>();
  outcome(client.collect(requests));
  await settle();
  const ws = last(1);
  await ws.open({ window: 20 }); // as no server has it
  const sent = () => ws.of(1).filter((f) => f.message).length;
  for (let i = 0; i < 3; i++) void requests.write({ message: "abc" });
  await settle();
  assert.equal(sent(), 1);
  await ws.receive({ call: 1, credit: 13 });
  assert.equal(sent(), 1, "with a credit of zero");
  await ws.receive({ call: 1, credit: 1 });
  assert.equal(sent(), 2);
  ws.bufferedAmount = 262144;
  await ws.receive({ call: 1, credit: 1000 });
  await tick(1000);
  assert.equal(sent(), 2);
  const other = outcome(client.echo({}));
  await tick(1000);
  assert.equal(ws.of(2).length, 0, "nor is a call opened");
  ws.bufferedAmount = 262143;
  await tick(10);
  assert.equal(sent(), 3);
  assert.equal(ws.of(2).length, 1);
  assert.deepEqual(other, {});
  // What comes wakes it as well, for timers are slow in a page that nobody sees.
  ws.bufferedAmount = 262144;
  void requests.write({ message: "abc" });
  await settle();
  ws.bufferedAmount = 0;
  await ws.receive({});
  assert.equal(sent(), 4);
});

test("calls beyond those at once wait, and those that end meanwhile are never sent", async (t) => {
  const { client } = await setup(t);
  const abort = new AbortController();
  const calls = [outcome(client.echo({})), outcome(client.echo({}, { signal: abort.signal })), outcome(client.echo({}, { timeoutMs: 50 })), outcome(client.echo({}))];
  await settle();
  await last(1).open({ maxCalls: 1 });
  abort.abort();
  t.mock.timers.tick(50);
  await settle();
  assert.deepEqual(calls.map(codeOf), [undefined, "Canceled", "DeadlineExceeded", undefined]);
  await last(1).receive({ call: 1, message: {}, end: {} });
  assert.deepEqual(last(1).sent.flatMap((f) => (f.open ? f.call : [])), [1, 2]);
  await last(1).receive({ call: 2, message: {}, end: {} });
  assert.ok(calls[3]?.value);
});

test("a call that ends before its socket is open leaves nothing behind", async (t) => {
  const { client } = await setup(t);
  const abort = new AbortController();
  const calls = [outcome(client.echo({}, { signal: abort.signal })), outcome(all(client.converse(createWritableIterable(), { signal: abort.signal })))];
  client.converse(createWritableIterable(), { signal: abort.signal }); // that nobody looks at
  await settle();
  abort.abort(new Error("enough"));
  await settle();
  assert.deepEqual(calls.map(codeOf), ["Canceled", "Canceled"]);
  await last(1).open();
  assert.deepEqual(last(1).sent.map((f) => Object.keys(f)), [["hello"]]);
});

test("nothing is sent of a call that is aborted before it is made", async (t) => {
  const { client } = await setup(t);
  outcome(client.echo({}));
  await settle();
  await last(1).open();
  const calls = [outcome(client.echo({}, { signal: AbortSignal.abort() })), outcome(all(client.expand({}, { signal: AbortSignal.abort() })))];
  await settle();
  assert.deepEqual(calls.map(codeOf), ["Canceled", "Canceled"]);
  assert.deepEqual([...last(1).of(2), ...last(1).of(3)], []);
});

test("an aborted call is cancelled, and so is one whose requests fail", async (t) => {
  const { client } = await setup(t);
  const abort = new AbortController();
  const aborted = outcome(client.echo({}, { signal: abort.signal }));
  await settle();
  await last(1).open();
  abort.abort();
  await settle();
  assert.equal(codeOf(aborted), "Canceled");
  assert.deepEqual(last(1).of(1).at(-1), { call: 1, cancel: true });
  async function* requests() {
    yield {};
    throw new Error("no more");
  }
  const failed = outcome(client.collect(requests()));
  await settle();
  assert.equal(codeOf(failed), "Internal", "as with the transports of Node");
  assert.equal(failed.error?.rawMessage, "no more");
  assert.deepEqual(last(1).of(2).at(-1), { call: 2, cancel: true });
});

test("a call that is aborted at any moment is either cancelled or not opened", async (t) => {
  const { client } = await setup(t);
  outcome(client.echo({}));
  await settle();
  await last(1).open();
  const kinds = new Set<string>();
  for (let moment = 0; moment < 50; moment++) {
    const abort = new AbortController();
    const before = last(1).sent.length;
    const call = outcome(client.echo({}, { signal: abort.signal }));
    for (let i = 0; i < moment; i++) await undefined;
    abort.abort();
    await settle();
    assert.equal(codeOf(call), "Canceled");
    const sent = last(1).sent.slice(before).map((f) => Object.keys(f)[1]).join();
    assert.match(sent, /^(open,cancel)?$/, `after ${moment} microtasks`);
    kinds.add(sent);
  }
  assert.equal(kinds.size, 2);
});

test("a call is aborted though its request has not come", async (t) => {
  const { transport } = await setup(t);
  const abort = new AbortController();
  async function* never() {
    await new Promise(() => {});
    yield {};
  }
  const call = outcome(transport.stream(EchoService.method.expand, abort.signal, undefined, undefined, never()));
  await settle();
  abort.abort();
  await settle();
  assert.equal(codeOf(call), "Canceled");
});

test("answers that came before an error are read before it", async (t) => {
  const { client } = await setup(t);
  const answers = client.expand({})[Symbol.asyncIterator]();
  await settle();
  await last(1).open();
  await last(1).receive({ call: 1, message: { message: "a" } });
  await last(1).receive({ call: 1, end: { code: 8, message: "enough", details: [{ type: "type.googleapis.com/a.B", value: "AAE=" }] } });
  assert.equal((await answers.next()).value.message, "a");
  const call = outcome(answers.next());
  await settle();
  assert.equal(codeOf(call), "ResourceExhausted");
  assert.deepEqual(call.error?.details, [{ type: "a.B", value: new Uint8Array([0, 1]) }]);
});

test("a server that is not heard of is pinged, and then given up", async (t) => {
  const { client, tick } = await setup(t, { pingIntervalMs: 100 });
  const call = outcome(client.echo({}));
  await settle();
  const ws = last(1);
  await ws.open();
  const pings = () => ws.sent.filter((f) => f.ping !== undefined).length;
  await tick(100);
  assert.equal(pings(), 0);
  await tick(100);
  assert.equal(pings(), 1);
  await ws.receive({ pong: 0 });
  await tick(100);
  await ws.receive({ ping: 7 }); // is heard as well, and answered
  assert.deepEqual(ws.sent.at(-1), { pong: 7 });
  await tick(200);
  assert.equal(pings(), 2);
  ws.bufferedAmount = 10;
  await tick(99);
  assert.deepEqual(call, {});
  await tick(1);
  assert.equal(codeOf(call), "Unavailable");
  assert.equal(ws.closed, 1000);
});

test("a server that takes what is sent is not given up", async (t) => {
  const { client, tick } = await setup(t, { pingIntervalMs: 100 });
  const call = outcome(client.echo({}));
  await settle();
  const ws = last(1);
  await ws.open();
  for (let left = 100_000; left > 0; left -= 10_000) {
    ws.bufferedAmount = left;
    await tick(100);
  }
  assert.deepEqual(call, {});
});

test("without pings the server may be silent", async (t) => {
  const { client, tick } = await setup(t, { pingIntervalMs: 0 });
  const call = outcome(client.echo({}));
  await settle();
  await last(1).open();
  await tick(3_600_000);
  assert.deepEqual(call, {});
  assert.equal(last(1).sent.length, 2);
});

test("a server that does not say hello is given up", async (t) => {
  const { client, tick } = await setup(t);
  const call = outcome(client.echo({}));
  await settle();
  last(1).onopen?.({});
  await tick(19_999);
  assert.deepEqual(call, {});
  await tick(1);
  assert.equal(codeOf(call), "Unavailable");
  assert.equal(last(1).closed, 1000);
});

test("close ends calls and the socket, for good", async (t) => {
  const { client, transport, states, tick } = await setup(t);
  const running = outcome(client.echo({}));
  await settle();
  await last(1).open();
  transport.close();
  transport.close();
  await settle();
  assert.equal(codeOf(running), "Canceled");
  assert.equal(last(1).closed, 1000);
  assert.equal(codeOf(await Promise.resolve(outcome(client.echo({}))).then(async (o) => (await settle(), o))), "Canceled");
  await tick(60_000);
  last(1);
  assert.deepEqual(states, ["connecting", "ready", "closed"]);
});

test("close ends calls that wait for a socket, and the wait for it", async (t) => {
  const { client, transport, tick } = await setup(t);
  const call = outcome(client.echo({}));
  await settle();
  await last(1).end(1006);
  const waiting = outcome(client.echo({}));
  await settle();
  transport.close();
  await tick(60_000);
  assert.deepEqual([call, waiting].map(codeOf), ["Unavailable", "Canceled"]);
  last(1);
});

test("close ends a call that has a socket of its own", async (t) => {
  const { client, transport } = await setup(t, { socketPerCall: true });
  const call = outcome(client.echo({}));
  await settle();
  await last(1).open();
  transport.close();
  await settle();
  assert.equal(codeOf(call), "Canceled");
  assert.equal(last(1).closed, 1000);
  outcome(client.echo({}));
  await settle();
  last(1);
});

test("a socket of a call's own that is not made fails the call, and is not tried again", async (t) => {
  const { client, tick } = await setup(t, { socketPerCall: true });
  const call = outcome(client.echo({}));
  await settle();
  await last(1).end(1006);
  assert.equal(codeOf(call), "Unavailable");
  await tick(60_000);
  last(1);
});

test("close ends calls that have not got as far as a socket", async (t) => {
  for (const socketPerCall of [false, true]) {
    await t.test(`socketPerCall: ${socketPerCall}`, async (t) => {
      FakeWebSocket.made = [];
      const { client, transport, tick } = await setup(t, { socketPerCall, metadata: () => new Promise(() => {}) });
      const call = outcome(client.echo({}));
      await settle();
      await last(1).open();
      transport.close();
      await tick(60_000);
      assert.equal(codeOf(call), "Canceled");
      assert.equal(last(1).closed, 1000);
    });
  }
});

test("a socket of a call's own is not made again when the server goes away", async (t) => {
  const { client, tick } = await setup(t, { socketPerCall: true });
  const call = outcome(all(client.converse(createWritableIterable())));
  await settle();
  await last(1).open();
  await last(1).receive({ goAway: { lastCall: 1 } });
  await tick(10_000);
  last(1);
  await last(1).receive({ call: 1, end: {} });
  assert.deepEqual(call.value, []);
  assert.equal(last(1).closed, 1000);
});

test("what is wrong with the callback is of no call", async (t) => {
  const errors = t.mock.method(console, "error", () => {});
  const { client } = await setup(t, {
    onStateChange(state: ConnectionState) {
      if (state == "ready") return Promise.reject(new Error("async"));
      throw new Error("sync");
    },
  });
  const call = outcome(client.echo({}));
  await settle();
  await last(1).open();
  await last(1).receive({ call: 1, message: {}, end: {} });
  assert.ok(call.value);
  assert.deepEqual(errors.mock.calls.map((c) => String(c.arguments[0])), ["Error: sync", "Error: async"]);
});

test("a WebSocket that may not be made fails each call", async (t) => {
  const { client } = await setup(t, {
    WebSocket: class extends FakeWebSocket {
      constructor(url: string, protocols: string) {
        super(url, protocols);
        throw new Error("not from this page");
      }
    },
  });
  for (let i = 0; i < 2; i++) {
    const call = outcome(client.echo({}));
    await settle();
    assert.equal(call.error?.rawMessage, "not from this page");
  }
});

test("a WebSocket that may not be made any more fails calls, until it may", async (t) => {
  let loggedIn = true;
  const { client, tick } = await setup(t, {
    WebSocket: class extends FakeWebSocket {
      constructor(url: string, protocols: string) {
        if (!loggedIn) throw new Error("logged out");
        super(url, protocols);
      }
    },
  });
  outcome(client.echo({}));
  await settle();
  await last(1).end(1006);
  const call = outcome(client.echo({}));
  await settle();
  loggedIn = false;
  await tick(1000);
  assert.equal(call.error?.rawMessage, "logged out");
  loggedIn = true;
  outcome(client.echo({}));
  await settle();
  last(2);
});

test("metadata are asked for once a call, however many wait", async (t) => {
  let asked = 0;
  const { client } = await setup(t, { metadata: () => (asked++, {}) });
  const calls = Array.from({ length: 10 }, () => outcome(client.echo({})));
  await settle();
  await last(1).open({ maxCalls: 1 });
  for (let call = 1; call <= calls.length; call++) await last(1).receive({ call, message: {}, end: {} });
  assert.ok(calls.every((call) => call.value));
  assert.equal(asked, calls.length);
});

test("each socket is told the metadata, though they are what they were", async (t) => {
  const hello = { hello: { metadata: { authorization: ["Bearer x"] } } };
  for (const socketPerCall of [false, true]) {
    await t.test(`socketPerCall: ${socketPerCall}`, async (t) => {
      FakeWebSocket.made = [];
      const { client, tick } = await setup(t, { socketPerCall, metadata: () => ({ authorization: "Bearer x" }) });
      for (const made of [1, 2]) {
        const call = outcome(client.echo({}));
        await settle();
        await last(made).open();
        const [, said, opened] = last(made).sent; // after what the client takes
        assert.deepEqual(said, hello);
        assert.ok(opened?.open);
        if (!socketPerCall) {
          outcome(client.echo({}));
          await settle();
          assert.deepEqual(last(made).sent.filter((f) => f.hello?.metadata), [hello], "said once");
        }
        await last(made).end(1006);
        assert.equal(codeOf(call), "Unavailable");
        await tick(1000);
      }
    });
  }
});

test("a provider of metadata that does not answer holds its own call only", async (t) => {
  let answer: (value: HeadersInit) => void = () => {};
  const { client, tick } = await setup(t, { metadata: () => new Promise((resolve) => (answer = resolve)) });
  const call = outcome(client.echo({}, { timeoutMs: 50 }));
  await settle();
  await last(1).open();
  await tick(50);
  assert.equal(codeOf(call), "DeadlineExceeded");
  answer({ authorization: "Bearer x" });
  await settle();
  assert.equal(last(1).sent.length, 1);
});

test("options that are undefined are not set, and those without limit are as large as they may be", async (t) => {
  const names = ["useBinaryFormat", "windowBytes", "readMaxBytes", "pingIntervalMs", "reconnectBaseMs", "reconnectMaxMs", "WebSocket"];
  const set = (value: unknown, ...names: string[]) => Object.fromEntries(names.map((name) => [name, value]));
  for (const [options, hello] of [
    [{ ...set(undefined, ...names), WebSocket: FakeWebSocket }, { window: 65536, maxMessage: 4 << 20 }],
    [set(Infinity, "windowBytes", "readMaxBytes", "pingIntervalMs"), { window: 2 ** 31 - 1, maxMessage: 2 ** 31 - 1 }],
  ] as const) {
    await t.test(JSON.stringify(hello), async (t) => {
      FakeWebSocket.made = [];
      const { client, tick } = await setup(t, { useBinaryFormat: true, ...options });
      const call = outcome(client.echo({}));
      await settle();
      last(1).onopen?.({});
      await tick(10_000);
      assert.deepEqual(call, {});
      assert.deepEqual(last(1).sent, [{ hello }]);
    });
  }
});

test("options that are wrong are told of at once", () => {
  assert.throws(() => createGrpcWsTransport({ baseUrl: "no url", WebSocket: FakeWebSocket }), TypeError);
  const own = globalThis.WebSocket;
  Reflect.deleteProperty(globalThis, "WebSocket");
  try {
    assert.throws(() => createGrpcWsTransport({ baseUrl: "http://a" }), /WebSocket/);
  } finally {
    globalThis.WebSocket = own;
  }
});

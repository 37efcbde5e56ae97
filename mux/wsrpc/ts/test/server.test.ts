// The transport against the real server, in both encodings.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, encodeBinaryHeader } from "@connectrpc/connect";
import { createWritableIterable } from "@connectrpc/connect/protocol";
import { type ConnectionState, type GrpcWsTransportOptions, createCompositeTransport, createGrpcWsTransport } from "oneport-grpc-ws";
import { WebSocket as NpmWebSocket } from "ws";
import { type ConverseRequestSchema, EchoService } from "../build/gen/echo/echo_pb.js";
import { Greeter } from "../build/gen/helloworld/helloworld_pb.js";
import { type Server, build, start } from "./server.js";

// failure is what the server of the browser check says to "test-do".
const failure = 'größer als 100 %,\n"so" 😀';

let program: string;
let server: Server; // of the browser check
let sockets: Spy[] = [];
const unhandled: unknown[] = [];
process.on("unhandledRejection", (reason) => unhandled.push(reason));

// Spy is a WebSocket that tells how much has come, and the most that has waited to be sent.
class Spy extends globalThis.WebSocket {
  received = 0;
  buffered = 0;
  sent: (string | Uint8Array)[] = [];
  constructor(url: string, protocols: string) {
    super(url, protocols);
    sockets.push(this);
    this.addEventListener("message", ({ data }: MessageEvent<string | ArrayBuffer>) => {
      this.received += typeof data == "string" ? data.length : data.byteLength;
    });
  }
  override send(data: string | Uint8Array<ArrayBuffer>) {
    this.sent.push(data);
    super.send(data);
    this.buffered = Math.max(this.buffered, this.bufferedAmount);
  }
}

before(async () => {
  program = build(".");
  server = await start(build("./scripts/browser/server"));
});

after(async () => {
  await server.stop();
  await sleep(10);
  assert.deepEqual(unhandled, [], "unhandled rejections");
});

function connect(t: { after(f: () => void): void }, options: Partial<GrpcWsTransportOptions> = {}) {
  sockets = [];
  const transport = createGrpcWsTransport({ baseUrl: `http://${server.address}`, WebSocket: Spy, ...options });
  t.after(() => transport.close());
  return { transport, client: createClient(EchoService, transport) };
}

const fails = async (call: () => Promise<unknown>, code: Code) => {
  const err = await call().then(
    () => assert.fail("the call did not fail"),
    (err: unknown) => err,
  );
  assert.ok(err instanceof ConnectError, String(err));
  assert.equal(Code[err.code], Code[code], err.message);
  return err;
};

const all = async <T>(answers: AsyncIterable<T>) => {
  const list: T[] = [];
  for await (const answer of answers) list.push(answer);
  return list;
};

async function* texts(...list: string[]) {
  for (const message of list) yield { message };
}

// settles waits until f is above least, gives it time to grow further, and returns it.
async function settles(f: () => number, least: number): Promise<number> {
  while (f() <= least) await sleep(5);
  await sleep(150);
  return f();
}

type Converse = MessageInitShape<typeof ConverseRequestSchema>;

for (const useBinaryFormat of [true, false]) {
  describe(useBinaryFormat ? "binary" : "JSON", () => {
    const options = { useBinaryFormat };

    test("the four kinds", async (t) => {
      const { client } = connect(t, options);
      assert.equal((await client.echo({ message: "grüße" })).message, "grüße");
      assert.equal((await client.echo({})).message, "");
      assert.deepEqual((await all(client.expand({ message: "m", count: 3 }))).map((m) => m.message), ["m", "m", "m"]);
      assert.deepEqual((await client.collect(texts("a", "", "b"))).messages, ["a", "", "b"]);
      assert.deepEqual((await client.collect(texts())).messages, []);
      assert.deepEqual((await all(client.converse(texts("a", "b")))).map((m) => m.message), ["a", "b"]);
      assert.equal(sockets.length, 1);
      assert.ok(sockets[0]!.sent.every((data) => (typeof data == "string") == !useBinaryFormat));
    });

    test("an answer of a bidi call is seen before the next request is sent", async (t) => {
      const { client } = connect(t, options);
      const requests = createWritableIterable<Converse>();
      const answers = client.converse(requests)[Symbol.asyncIterator]();
      for (const message of ["a", "b", "c"]) {
        void requests.write({ message });
        const { value, done } = await answers.next();
        assert.ok(!done);
        assert.equal(value.message, message);
      }
      requests.close();
      assert.equal((await answers.next()).done, true);
    });

    test("metadata go both ways", async (t) => {
      const { client } = connect(t, options);
      const bytes = new Uint8Array([0, 255, 1]);
      const seen: Record<string, Headers> = {};
      const call = {
        headers: { "test-send": "x", "test-send-bin": encodeBinaryHeader(bytes) },
        onHeader: (h: Headers) => (seen["header"] = h),
        onTrailer: (h: Headers) => (seen["trailer"] = h),
      };
      const check = () => {
        for (const kind of ["header", "trailer"]) {
          assert.equal(seen[kind]?.get(`test-${kind}`), "x");
          assert.deepEqual(new Uint8Array(Buffer.from(seen[kind]?.get(`test-${kind}-bin`) ?? "", "base64")), bytes);
          delete seen[kind];
        }
      };
      await client.echo({}, call);
      check();
      await all(client.converse(texts("a"), call));
      check();
    });

    test("an error has its text, details and metadata", async (t) => {
      const { client } = connect(t, options);
      const call = { headers: { "test-do": "detail", "test-send": "x" } };
      for (const make of [() => client.echo({}, call), () => all(client.expand({}, call)), () => client.collect(texts(), call)]) {
        const err = await fails(make, Code.FailedPrecondition);
        assert.equal(err.rawMessage, "detailed");
        assert.deepEqual(err.findDetails(DurationSchema).map((d) => d.seconds), [5n]);
        assert.equal(err.metadata.get("test-trailer"), "x");
        assert.equal(err.metadata.get("test-header"), "x");
      }
      assert.equal((await fails(() => client.echo({}, { headers: { "test-do": "fail" } }), Code.FailedPrecondition)).rawMessage, failure);
    });

    test("an aborted call ends at the server", async (t) => {
      const { client } = connect(t, options);
      const running = async () => ((await (await fetch(`http://${server.address}/calls`)).json()) as { running: number }).running;
      const abort = new AbortController();
      const call = fails(() => client.echo({}, { headers: { "test-do": "hang" }, signal: abort.signal }), Code.Canceled);
      while ((await running()) != 1) await sleep(5);
      abort.abort();
      await call;
      while ((await running()) != 0) await sleep(5);
      await fails(() => client.echo({}, { signal: abort.signal }), Code.Canceled);
    });

    test("a call ends with its deadline, which the server knows", async (t) => {
      const { client } = connect(t, options);
      await client.echo({});
      const headers = { "test-do": "hang" };
      const started = Date.now();
      await fails(() => client.echo({}, { headers, timeoutMs: 100 }), Code.DeadlineExceeded);
      await fails(() => all(client.converse(texts("a"), { headers, timeoutMs: 100 })), Code.DeadlineExceeded);
      assert.ok(Date.now() - started >= 190, `ended after ${Date.now() - started} ms`);
      if (!useBinaryFormat) {
        await client.echo({}, { timeoutMs: 60_000 });
        const opened = sockets[0]!.sent.map((text) => (JSON.parse(text as string) as { open?: { timeoutMs?: number } }).open?.timeoutMs ?? 0);
        assert.ok(Math.max(...opened) > 30_000 && Math.max(...opened) <= 60_000, `timeoutMs: ${opened}`);
      }
    });

    test("a slow reader bounds what comes", async (t) => {
      const { client } = connect(t, options);
      const message = "x".repeat(1000);
      const count = 1000;
      const answers = client.expand({ message, count })[Symbol.asyncIterator]();
      await answers.next();
      const received = await settles(() => sockets[0]!.received, 60_000);
      assert.ok(received < 75_000, `${received} bytes have come, of a window of 65536`);
      let n = 1;
      while (!(await answers.next()).done) n++;
      assert.equal(n, count);
    });

    test("a slow server bounds what is sent", async (t) => {
      const { client } = connect(t, options);
      let sent = 0;
      async function* requests() {
        for (;;) {
          sent++;
          yield { message: "x".repeat(1000) };
        }
      }
      const abort = new AbortController();
      const call = fails(() => client.collect(requests(), { headers: { "test-do": "hang" }, signal: abort.signal }), Code.Canceled);
      const n = await settles(() => sent, 50);
      assert.ok(n < 70, `${n} requests of 1000 bytes were taken, for a credit of 65536`);
      abort.abort();
      await call;
    });

    test("credit comes back for all that is sent and received", async (t) => {
      const { client } = connect(t, options);
      const list = Array.from({ length: 3000 }, (_, i) => `${i} é `.repeat(20));
      assert.deepEqual((await all(client.converse(texts(...list)))).map((m) => m.message), list);
      assert.ok(sockets[0]!.buffered < 262144 + 1000, `${sockets[0]!.buffered} bytes waited in the socket`);
    });

    test("200 calls at once on one socket", async (t) => {
      const { client } = connect(t, options);
      const calls = Array.from({ length: 200 }, (_, i) => client.converse(texts(`${i}`), {}));
      assert.deepEqual((await Promise.all(calls.map(all))).map(([m]) => m?.message), Array.from({ length: 200 }, (_, i) => `${i}`));
      assert.equal(sockets.length, 1);
    });
  });
}

test("calls beyond those at once wait for others", async (t) => {
  const { client } = connect(t);
  const replies = await Promise.all(Array.from({ length: 600 }, (_, i) => client.echo({ message: `${i}` })));
  assert.deepEqual(replies.map((m) => m.message), Array.from({ length: 600 }, (_, i) => `${i}`));
  assert.equal(sockets.length, 1);
});

test("a message above the server's limit is refused before it is sent", async (t) => {
  const { client } = connect(t);
  const message = "x".repeat(4 << 20);
  await fails(() => client.echo({ message }), Code.ResourceExhausted);
  await fails(() => client.collect(texts(message)), Code.ResourceExhausted);
  assert.ok(sockets[0]!.sent.every((data) => data.length < 1000));
  // One of just the limit goes through: 5 bytes are the field's.
  const largest = message.slice(5);
  assert.equal((await client.echo({ message: largest })).message, largest);
});

test("an answer above the limit ends its call alone", async (t) => {
  const { client } = connect(t, { readMaxBytes: 1000 });
  await fails(() => client.echo({ message: "x".repeat(1000) }), Code.ResourceExhausted);
  assert.equal((await client.echo({ message: "x".repeat(997) })).message.length, 997);
});

test("metadata that are too large, or no base64, end their call alone", async (t) => {
  for (const useBinaryFormat of [true, false]) {
    const { client } = connect(t, { useBinaryFormat });
    await client.echo({});
    await fails(() => client.echo({}, { headers: { key: "x".repeat(70_000) } }), Code.ResourceExhausted);
    await fails(() => client.echo({}, { headers: { "key-bin": "!" } }), Code.Internal);
    assert.equal((await client.echo({ message: "a" })).message, "a");
    assert.equal(sockets.length, 1);
  }
});

test("credentials are told after the connection, once, and again when they change", async (t) => {
  let token = "a";
  const { client } = connect(t, { useBinaryFormat: false, metadata: async () => ({ "test-send": token }) });
  const header = async () => {
    let got: string | null = null;
    await client.echo({}, { onHeader: (h) => (got = h.get("test-header")) });
    return got;
  };
  assert.equal(await header(), "a");
  assert.equal(await header(), "a");
  token = "b";
  assert.equal(await header(), "b");
  const told = sockets[0]!.sent.filter((text) => String(text).includes("test-send"));
  assert.deepEqual(told, ['{"hello":{"metadata":{"test-send":["a"]}}}', '{"hello":{"metadata":{"test-send":["b"]}}}']);
});

test("without credentials there is no call", async (t) => {
  const { client } = connect(t, { metadata: () => Promise.reject(new Error("logged out")) });
  const err = await fails(() => client.echo({}), Code.Unauthenticated);
  assert.equal(err.rawMessage, "logged out");
});

test("interceptors are run around calls", async (t) => {
  const { client } = connect(t, {
    interceptors: [
      (next) => async (req) => {
        req.header.set("test-send", "intercepted");
        assert.equal(req.url, `http://${server.address}/echo.v1.EchoService/${req.method.name}`);
        return next(req);
      },
    ],
  });
  let header: Headers | undefined;
  await client.echo({}, { onHeader: (h) => (header = h) });
  assert.equal(header?.get("test-header"), "intercepted");
});

test("one socket a call", async (t) => {
  const { client } = connect(t, { socketPerCall: true });
  await Promise.all([client.echo({}), all(client.expand({})), client.collect(texts("a"))]);
  assert.equal(sockets.length, 3);
  while (sockets.some((s) => s.readyState != s.CLOSED)) await sleep(5);
});

test("unary calls by fetch, streams by the socket", async (t) => {
  const { transport } = connect(t);
  const called: string[] = [];
  const unary = createGrpcWsTransport({ baseUrl: `http://${server.address}`, interceptors: [(next) => (req) => (called.push(req.method.name), next(req))] });
  t.after(() => unary.close());
  const client = createClient(EchoService, createCompositeTransport({ unary, stream: transport }));
  await client.echo({});
  await all(client.expand({}));
  assert.deepEqual(called, ["Echo"]);
});

test("the package ws, with headers in the handshake", async (t) => {
  class Ws extends NpmWebSocket {
    constructor(url: string, protocols: string) {
      super(url, protocols, { headers: { "test-send": "x" } });
    }
  }
  const { client } = connect(t, { WebSocket: Ws });
  let header: Headers | undefined;
  assert.equal((await client.echo({ message: "a" }, { onHeader: (h) => (header = h) })).message, "a");
  assert.equal(header?.get("test-header"), "x");
  assert.deepEqual((await all(client.converse(texts("a", "b")))).map((m) => m.message), ["a", "b"]);
});

test("a server that is killed and comes again", async (t) => {
  let oneport = await start(program, "--addr", "127.0.0.1:0");
  const states: ConnectionState[] = [];
  const { client, transport } = connect(t, { baseUrl: `http://${oneport.address}/`, onStateChange: (state) => states.push(state), reconnectBaseMs: 50 });
  const requests = createWritableIterable<Converse>();
  const answers = client.converse(requests)[Symbol.asyncIterator]();
  void requests.write({ message: "a" });
  await answers.next();
  // Two that nobody looks at meanwhile.
  client.converse(createWritableIterable<Converse>());
  client.expand({ count: 1000, interval: { seconds: 1n } });
  await oneport.stop();
  await fails(() => answers.next(), Code.Unavailable);
  await fails(() => client.echo({}), Code.Unavailable);
  oneport = await start(program, "--addr", oneport.address);
  t.after(() => oneport.stop());
  while (transport.state != "ready") await sleep(5);
  assert.equal((await client.echo({ message: "again" })).message, "again");
  assert.equal((await createClient(Greeter, transport).sayHello({ name: "you" })).message, "Hello you");
  assert.deepEqual(states.slice(0, 4), ["connecting", "ready", "waiting", "connecting"]);
  assert.equal(states.at(-1), "ready");
});

test("a server that goes away lets calls end", async (t) => {
  const oneport = await start(program, "--addr", "127.0.0.1:0", "--drain-delay", "0s");
  const { client, transport } = connect(t, { baseUrl: `http://${oneport.address}`, reconnectBaseMs: 50 });
  const requests = createWritableIterable<Converse>();
  const answers = client.converse(requests)[Symbol.asyncIterator]();
  void requests.write({ message: "a" });
  await answers.next();
  const stopped = oneport.stop("SIGTERM");
  while (transport.state == "ready") await sleep(5);
  void requests.write({ message: "b" });
  assert.equal((await answers.next()).value?.message, "b");
  requests.close();
  assert.equal((await answers.next()).done, true);
  await stopped;
});

// Calls the echo service from a page, with clients of Connect and gRPC-Web as they
// come from npm. What runs in the page is in app/, what answers in server/.
import { readFile } from 'node:fs/promises';

const failure = 'größer als 100 %,\n"so" 😀';
const negative = 'echo: interval: -1s is negative';
const exceeded = 'context deadline exceeded'; // the server's words
const metadata = { 'test-send': 'a b', 'test-send-bin': 'AAH+/w' };
const returned = (part) => ({ [`test-${part}`]: 'a b', [`test-${part}-bin`]: [0, 1, 254, 255] });

// google.rpc.Status with the code, the message and a google.protobuf.Duration of 5 s.
const utf8 = (s) => [...new TextEncoder().encode(s)];
const field = (n, bytes) => [n << 3 | 2, bytes.length, ...bytes];
const detailed = [8, 9, ...field(2, utf8('detailed')), ...field(3,
  [...field(1, utf8('type.googleapis.com/google.protobuf.Duration')), ...field(2, [8, 5])])];

// What each client sends for a unary and for a streaming call, what it says of a call
// that it has cancelled, and the details of an error, where it gives them: as they are sent,
// or decoded.
const connect = { cancelled: 1, clock: true, details: [5] }; // it ends a call at its deadline itself
const google = { cancelled: 1, silent: true }; // about a stream that it has cancelled
const improbable = { cancelled: 0, silent: true, details: detailed }; // likewise, about any call
const nice = { cancelled: 'AbortError', details: detailed };
const webSocket = { unary: 'WebSocket', stream: 'WebSocket', clientStream: 'WebSocket', duplex: true };
// Told by the server what it takes, it sends no more, and it says UNAVAILABLE if refused.
const grpcWs = { ...connect, ...webSocket, tooLarge: 'message too large, or metadata', refused: 14, path: '/grpc-ws' };
const clients = {
  'connect-web, Connect': { ...connect, unary: 'POST application/proto', stream: 'POST application/connect+proto' },
  'connect-web, Connect JSON': { ...connect, unary: 'POST application/json', stream: 'POST application/connect+json' },
  'connect-web, Connect GET': { ...connect, unary: 'GET', stream: 'POST application/connect+proto' },
  'connect-web, credentials': { ...connect, unary: 'POST application/json', stream: 'POST application/connect+json' },
  'connect-web, gRPC-Web': { ...connect, ...both('application/grpc-web+proto') },
  'connect-web, gRPC-Web JSON': { ...connect, ...both('application/grpc-web+json') },
  // In binary it has a message only when it has them all.
  'grpc-web, binary': { ...google, ...both('application/grpc-web+proto'), late: true },
  'grpc-web, text': { ...google, ...both('application/grpc-web-text') },
  '@improbable-eng, fetch': { ...improbable, ...both('application/grpc-web+proto') },
  '@improbable-eng, WebSocket': { ...improbable, ...webSocket },
  'nice-grpc-web': { ...nice, ...both('application/grpc-web+proto') },
  'nice-grpc-web, WebSocket': { ...nice, ...webSocket },
  'grpc-ws.v1': grpcWs,
  'grpc-ws.v1, JSON': grpcWs,
  'grpc-ws.v1, socket a call': grpcWs,
  'grpc-ws.v1 and fetch': { ...grpcWs, unary: 'POST application/json', tooLarge: undefined, refused: 2 },
  'no library, WebSocket': { ...webSocket, path: '/grpc-ws', details: [5], cancelled: 'AbortError', refused: 1006, tooLarge: false }, // is JSON, and of other sizes
  'no library, fetch': { ...both('application/json'), details: [5], cancelled: 'AbortError', refused: 'TypeError', path: '/v1/echo',
    clientStream: 'POST application/x-ndjson', noTrailer: true }, // of a stream: fetch does not tell
};

function both(type) {
  return { unary: `POST ${type}`, stream: `POST ${type}` };
}

const ok = { code: 0, header: {}, trailer: {} };
const answered = { code: 0, header: returned('header'), trailer: returned('trailer') };
const endless = { message: 'a', count: 2, interval: '3600s' };

// The columns of the table: two lines of heading, and a step, which returns what came
// and what should have come, or nothing where there is nothing to do.
const columns = [
  ['unary', 'call', async (c) => [
    await c.observe('echo', { message: 'a' }),
    { messages: ['a'], ...ok, sent: c.client.unary }]],
  ['unary', '1 MiB', async (c) => c.client.unary !== 'GET' && [
    await c.long(1 << 20),
    { messages: [true], ...ok }]],
  ['unary', 'metadata', async (c) => [
    await c.call('echo', { message: 'a' }, { metadata }),
    { messages: ['a'], ...answered }]],
  ['unary', 'error', async (c) => c.fail('echo', {})],
  ['unary', 'details', async (c) => c.client.details && c.detail('echo', {})],
  ['unary', 'too large', async (c) => c.client.unary === 'WebSocket' && c.client.tooLarge !== false && [
    [await c.long((4 << 20) - 4), await c.long(4 << 20), await c.long(10 << 20)], // with 5 bytes of tag and length
    ['(4194305 vs. 4194304)', '(4194309 vs. 4194304)', '(4194304)'].map((sizes) => ({
      messages: [], code: 8, error: c.client.tooLarge ?? `grpc: received message larger than max ${sizes}`, trailer: {},
    }))]],
  ['unary', 'cancel', async (c) => [
    await c.cancel('echo', {}, { metadata: { 'test-do': 'hang' } }),
    { messages: [], code: c.client.cancelled }]],
  ['unary', 'deadline', async (c) => [
    await c.exceed('echo', {}, { metadata: { 'test-do': 'hang' } }),
    c.client.clock ? { code: 4 } : { code: 4, error: exceeded }]],
  ['stream', 'call', async (c) => [
    await c.observe('expand', { message: 'a', count: 3 }),
    { messages: ['a', 'a', 'a'], ...ok, sent: c.client.stream }]],
  ['stream', 'metadata', async (c) => [
    await c.call('expand', { message: 'a', count: 2 }, { metadata }),
    { messages: ['a', 'a'], ...answered, ...(c.client.noTrailer && { trailer: {} }) }]],
  ['stream', 'error', async (c) => [
    [await c.call('expand', { interval: '-1s' }),
      await c.call('expand', { interval: '-1s' }, { metadata })],
    [{ messages: [], code: 3, error: negative, trailer: {} },
      { messages: [], code: 3, error: negative, trailer: returned('trailer') }]]],
  ['stream', 'details', async (c) => c.client.details && c.detail('expand', {})],
  ['stream', 'cancel', async (c) => [
    await c.cancel('expand', endless, { cancelAfter: c.client.late ? undefined : 1 }),
    { messages: c.client.late ? [] : ['a'], code: c.client.silent ? 0 : c.client.cancelled }]],
  ['stream', 'deadline', async (c) => [
    await c.exceed('expand', endless),
    c.client.clock ? { code: 4 } : { code: 4, error: exceeded }]],
  ['client stream', 'call', async (c) => c.client.clientStream && [
    await c.observe('collect', [{ message: 'a' }, { message: 'b' }]),
    { messages: [['a', 'b']], ...ok, sent: c.client.clientStream }]],
  ['client stream', 'metadata', async (c) => c.client.clientStream && [
    await c.call('collect', [{ message: 'a' }], { metadata }),
    { messages: [['a']], ...answered }]],
  ['client stream', 'error', async (c) => c.client.clientStream && c.fail('collect', [{ message: 'a' }])],
  ['client stream', 'details', async (c) => c.client.clientStream && c.detail('collect', [])],
  ['client stream', 'cancel', async (c) => c.client.clientStream && [
    await c.cancel('collect', [{ message: 'a' }], { metadata: { 'test-do': 'hang' } }),
    { messages: [], code: c.client.cancelled }]],
  ['client stream', 'deadline', async (c) => c.client.clientStream && [
    await c.exceed('collect', [], { metadata: { 'test-do': 'hang' } }),
    c.client.clock ? { code: 4 } : { code: 4, error: exceeded }]],
  ['bidi', 'call', async (c) => c.client.duplex && [
    await c.call('converse', [{ message: 'a' }, { message: '' }, { message: 'c' }], { metadata }),
    { messages: ['a', '', 'c'], ...answered }]],
  ['bidi', '1 MiB', async (c) => c.client.duplex && [
    await c.long(1 << 20, 'converse', 5),
    { messages: Array(5).fill(true), ...ok }]],
  ['bidi', 'error', async (c) => c.client.duplex && c.fail('converse', [{ message: 'a' }])],
  ['bidi', 'details', async (c) => c.client.duplex && c.detail('converse', [])],
  ['bidi', 'cancel', async (c) => c.client.duplex && [
    await c.cancel('converse', [{ message: 'a' }, { message: 'b' }, { message: 'c' }], { cancelAfter: 2 }),
    { messages: ['a', 'b'], code: c.client.cancelled }]],
  ['bidi', 'deadline', async (c) => c.client.duplex && [
    await c.exceed('converse', [], { metadata: { 'test-do': 'hang' } }),
    c.client.clock ? { code: 4 } : { code: 4, error: exceeded }]],
  ['origin', 'refused', async (c) => c.closed && [
    await c.refuse('echo', { message: 'a' }),
    // A GET changes nothing, so it needs no permission; only the answer is withheld.
    { messages: [], code: c.client.refused ?? 2, started: c.client.unary === 'GET' ? 1 : 0 }]],
];

/** A client in a page, and the server that it is to call. */
class Caller {
  constructor(page, name, base, closed) {
    Object.assign(this, { page, name, client: clients[name], base, closed });
  }

  call(method, request, options) {
    return this.page.evaluate((args) => window.call(...args), [this.name, this.base, method, request, options]);
  }

  /**
   * Has a message of n characters given back, in a stream several times. It need not
   * leave the page to be compared.
   */
  long(n, method = 'echo', times) {
    return this.page.evaluate(async ([name, base, n, method, times]) => {
      const message = 'x'.repeat(n);
      const result = await window.call(name, base, method, times ? Array(times).fill({ message }) : { message });
      return { ...result, messages: result.messages.map((m) => m === message) };
    }, [this.name, this.base, n, method, times]);
  }

  /** Makes a call and tells what was sent for it as well. */
  async observe(method, request) {
    const paths = ['/echo.v1.EchoService/', this.client.path ?? '/echo.v1.EchoService/'];
    const socket = (this.base + paths[1]).replace('http', 'ws');
    const before = framesTo(this.page, socket);
    const requests = [];
    const listen = (sent) => paths.some((path) => sent.url().startsWith(this.base + path)) && requests.push([sent.method(), sent.headers()['content-type']].join(' ').trim());
    this.page.on('request', listen);
    const result = await this.call(method, request);
    this.page.off('request', listen);
    if (framesTo(this.page, socket) > before) {
      requests.push('WebSocket');
    }
    return { ...result, sent: requests.filter((sent) => !sent.startsWith('OPTIONS')).join() };
  }

  /** Has calls fail, without and with metadata: the result for a column. */
  async fail(method, request) {
    return [
      [await this.call(method, request, { metadata: { 'test-do': 'fail' } }),
        await this.call(method, request, { metadata: { ...metadata, 'test-do': 'fail' } })],
      [{ messages: [], code: 9, error: failure, trailer: {} },
        { messages: [], code: 9, error: failure, trailer: returned('trailer') }]];
  }

  /** Has a call fail by an error with a detail: likewise. */
  async detail(method, request) {
    return [
      await this.call(method, request, { metadata: { 'test-do': 'detail' } }),
      { messages: [], code: 9, error: 'detailed', trailer: {}, details: this.client.details }];
  }

  /**
   * Makes a call and cancels it, once it runs, unless the options say when. The server
   * must have seen that. How a client puts it into words is its own affair.
   */
  async cancel(method, request, options) {
    const ended = this.call(method, request, options);
    if (!options.cancelAfter) {
      await Promise.race([ended, this.running(1)]);
      await this.page.evaluate(() => window.cancel());
    }
    const { messages, code } = await ended;
    await this.running(0);
    return { messages, code };
  }

  /** Makes a call that does not end before its deadline. */
  async exceed(method, request, options) {
    const { code, error } = await this.call(method, request, { ...options, timeoutMs: 100 });
    // A clock in the client may be faster than the server, or not.
    return this.client.clock ? { code } : { code, error };
  }

  /** Calls the server that does not allow it, and tells how many calls it has started. */
  async refuse(method, request) {
    const before = await calls(this.page, this.closed);
    const { messages, code } = await new Caller(this.page, this.name, this.closed).call(method, request);
    const after = await calls(this.page, this.closed);
    return { messages, code, started: after.started - before.started };
  }

  /** Waits until the server has n calls running. */
  async running(n) {
    const end = Date.now() + 60_000;
    for (;;) {
      const { running } = await calls(this.page, this.base);
      if (running === n) {
        return;
      }
      if (Date.now() > end) {
        throw new Error(`${running} calls run after 60 s, not ${n}`);
      }
    }
  }
}

/** Counts what the page sends by WebSocket from now on, for framesTo. */
function watchSockets(page) {
  page.sent = new Map();
  page.on('websocket', (ws) => ws.on('framesent', () => {
    page.sent.set(ws.url(), (page.sent.get(ws.url()) ?? 0) + 1);
  }));
}

/** The number of WebSocket messages that the page has sent to URLs that begin so. */
function framesTo(page, url) {
  return [...page.sent].reduce((n, [to, frames]) => (to.startsWith(url) ? n + frames : n), 0);
}

/** The numbers of calls that a server has started and that are running. */
async function calls(page, base) {
  // page.request has a connection of its own, but may ask any server.
  const own = base === new URL(page.url()).origin;
  return own ? page.evaluate(async () => (await fetch('/calls')).json()) : (await page.request.get(`${base}/calls`)).json();
}

/**
 * Plays every column with every client, on pages of the service's own port and on
 * pages of an origin that it allows, and prints the table.
 *
 * @param port where the pages are, and a service that allows only their own origin
 * @param openPort where the same service is, but allows http[s]://127.0.0.1:port
 * @param streamsPort like port, and with WebSockets on streams of HTTP/2
 */
export async function checkClients(browser, context, check, port, openPort, streamsPort) {
  const table = [];
  for (const [scheme, version] of [['http', 'http/1.1'], ['https', 'h2']]) {
    const own = `${scheme}://localhost:${port}`;
    table.push(...await road(context, check, scheme, version, own, own));
    // To a browser an address is another site than the name that stands for it.
    table.push(...await road(context, check, `${scheme}, other origin`, version,
      `${scheme}://127.0.0.1:${port}`, `${scheme}://localhost:${openPort}`, own));
  }
  // In cleartext there are none, since a browser speaks HTTP/1.1 there. A context of its own
  // has connections of its own.
  const streams = `https://localhost:${streamsPort}`;
  const alone = await browser.newContext({ ignoreHTTPSErrors: true });
  table.push(...await road(alone, check, 'https, RFC 8441', 'h2', streams, streams, undefined, true));
  await alone.close();
  await check("README's table of browser clients", await promises(), () => kinds(table));
  print([
    ['', '', ...columns.map(([group], i) => (group === columns[i - 1]?.[0] ? '' : group))],
    ['client', 'page', ...columns.map(([, name]) => name)],
    ...table,
  ]);
}

/** Returns the lines of the table for a page of this origin, which has one connection or any number. */
async function road(context, check, title, version, origin, base, closed, one) {
  const page = await context.newPage();
  watchSockets(page);
  await page.goto(`${origin}/app/`);
  await page.evaluate(() => performance.setResourceTimingBufferSize(100_000));
  const connections = () => page.evaluate(async () => (await fetch('/connections')).json());
  const { begun } = one ? await connections() : {};
  const lines = [];
  for (const name of Object.keys(clients)) {
    const caller = new Caller(page, name, base, closed);
    const line = [name, title];
    for (const column of columns) {
      line.push(await cell(check, `${name}, ${title}`, column, caller));
    }
    lines.push(line);
  }
  if (origin === base) { // of another origin a page is not told
    await check(`${title}: protocol of the calls`, [version], () => page.evaluate((calls) => [...new Set(
      performance.getEntriesByType('resource').filter(({ name }) => name.startsWith(calls))
        .map(({ nextHopProtocol }) => nextHopProtocol).filter((protocol) => protocol !== ''))], // those of cancelled calls
    `${base}/echo.v1.EchoService/`));
  }
  if (one) {
    await check(`${title}: connections of the page and all of its calls`, { begun, open: 1 }, connections);
  }
  await page.close();
  return lines;
}

/** Takes the step of a column and returns what the table shall say of it. */
async function cell(check, row, [group, name, step], caller) {
  let result;
  try {
    result = await step(caller);
  } catch (err) {
    result = [String(err), 'no exception'];
  }
  if (!result) {
    return '-';
  }
  const [got, want] = result;
  return await check(`${row}: ${group} ${name}`, want, () => got) ? 'ok' : 'FAIL';
}

// The kinds of call that README says each client makes, "yes" or "no", in this order.
const kindsOfCall = ['unary', 'stream', 'client stream', 'bidi'];

/** Returns the same of the table: "yes" where all is ok on all pages, "no" where there was nothing to do. */
function kinds(table) {
  const cells = (name, kind) => table.filter(([client]) => client === name)
    .flatMap((line) => line.slice(2).filter((_, i) => columns[i][0] === kind && line[i + 2] !== '-'));
  return Object.keys(clients).map((name) => [name, ...kindsOfCall.map((kind) => {
    const done = cells(name, kind);
    return done.every((cell) => cell === 'ok') ? (done.length > 0 ? 'yes' : 'no') : 'FAIL';
  })]);
}

/** Reads README's table of browser clients. */
async function promises() {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const lines = readme.split('\n');
  const first = lines.indexOf('| client in a browser | unary | server streaming | client streaming | bidi |') + 2;
  const rows = lines.slice(first, lines.indexOf('', first));
  return rows.map((row) => row.split('|').slice(1, -1).map((cell) => cell.replaceAll('`', '').trim()));
}

function print(table) {
  const widths = table[0].map((_, i) => Math.max(...table.map((line) => line[i].length)));
  for (const line of table) {
    console.log(line.map((text, i) => text.padEnd(widths[i])).join('  ').trimEnd());
  }
}

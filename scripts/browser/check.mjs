// Drives a real Chromium against running servers, given by their ports:
//
//   node check.mjs ONEPORT APP OPEN STREAMS WORK
//
// ONEPORT is the command's; APP, OPEN and STREAMS are those of the program in server/, of
// which the second allows http://127.0.0.1:APP and https://127.0.0.1:APP, and the third
// takes WebSockets on streams of HTTP/2. All serve TLS and cleartext. WORK is a directory
// with the command, the script of the page in app/, and client.wasm and Go's wasm_exec.js in
// wasm/. Everything is done twice, from pages over http and over https, as a web application
// would.
import { isDeepStrictEqual } from 'node:util';
import { chromium } from 'playwright-core';
import { checkClients } from './clients.mjs';
import { checkEvents } from './events.mjs';
import { checkStreams } from './streams.mjs';
import { checkTransport } from './transport.mjs';
import { checkWasm } from './wasm.mjs';

const [port, appPort, openPort, streamsPort, work] = process.argv.slice(2);
if (!work) {
  console.error('usage: node check.mjs ONEPORT APP OPEN STREAMS WORK');
  process.exit(2);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
// The certificate itself is checked with curl and grpcurl, which are given the CA.
const context = await browser.newContext({ ignoreHTTPSErrors: true });

let passed = 0;
let failed = 0;

/** Compares what a step gives with what is wanted, both plain data; tells if they agree. */
async function check(name, want, step) {
  let got;
  try {
    got = await step();
  } catch (err) {
    got = String(err);
  }
  if (isDeepStrictEqual(got, want)) {
    passed++;
    return true;
  }
  failed++;
  console.log(`FAIL ${name}\n  got  ${JSON.stringify(got)}\n  want ${JSON.stringify(want)}`);
  return false;
}

/**
 * Opens a WebSocket in the page and plays a script: a string is sent as text, an
 * array of numbers as binary, null waits for one more answer, { close } closes with
 * that code. Returns the answers and how the socket closed.
 */
function talk(page, url, script) {
  return page.evaluate(async ([url, script]) => {
    const ws = new WebSocket(url);
    ws.binaryType = 'arraybuffer';
    const answers = [];
    const arrivals = { seen: 0, wake: () => {} };
    ws.onmessage = ({ data }) => {
      answers.push(typeof data === 'string' ? data : [...new Uint8Array(data)]);
      arrivals.wake();
    };
    const closed = new Promise((resolve, reject) => {
      ws.onclose = (e) => { resolve([e.code, e.reason]); arrivals.wake(); };
      setTimeout(() => reject(new Error(`not closed after 60 s; answers: ${JSON.stringify(answers)}`)), 60_000);
    });
    await new Promise((resolve) => { ws.onopen = resolve; closed.then(resolve, resolve); });
    for (const item of script) {
      if (item === null) {
        if (++arrivals.seen > answers.length && ws.readyState === WebSocket.OPEN) {
          await new Promise((resolve) => { arrivals.wake = resolve; });
        }
      } else if (Array.isArray(item)) {
        ws.send(new Uint8Array(item));
      } else if (typeof item === 'object') {
        ws.close(item.close);
      } else {
        ws.send(item);
      }
    }
    const [code, reason] = await closed;
    return { answers, code, reason };
  }, [url, script]);
}

/** Tells how a handshake was answered, which a page is not told. */
async function refusal(page, url) {
  const error = new Promise((resolve) => {
    page.once('websocket', (ws) => ws.once('socketerror', resolve));
  });
  const { code } = await talk(page, url, []);
  return [code, (await error).match(/response code: (\d+)/)?.[1]];
}

const utf8 = (s) => [...new TextEncoder().encode(s)];
/** A message whose field 1 is a short string: HelloRequest, HelloReply and others. */
const message = (s) => [0x0a, utf8(s).length, ...utf8(s)];

async function road(http, ws, version) {
  const page = await context.newPage();
  await page.goto(`${http}/`);
  await check(`${http}: title of the welcome page`, 'oneport', () => page.title());
  await check(`${http}: fetch /healthz`, [200, 'ok\n'], () => page.evaluate(async () => {
    const response = await fetch('/healthz');
    return [response.status, await response.text()];
  }));
  await check(`${http}: protocol`, version, () => page.evaluate(
    () => performance.getEntriesByType('navigation')[0].nextHopProtocol));

  const echo = `${ws}/grpc-ws/echo.v1.EchoService`;
  const ok = { code: 1000, reason: '' };
  const cases = [
    ['/ws, text', `${ws}/ws`, ['grüß dich', null, { close: 1000 }],
      { answers: ['grüß dich'], ...ok }],
    ['/ws, binary', `${ws}/ws`, [[0, 1, 254, 255], null, { close: 1000 }],
      { answers: [[0, 1, 254, 255]], ...ok }],
    ['/ws, empty', `${ws}/ws`, ['', [], null, null, { close: 3456 }],
      { answers: ['', []], code: 3456, reason: '' }],
    ['SayHello, binary', `${ws}/grpc-ws`, [message('you'), null, ''],
      { answers: [message('Hello you')], ...ok }],
    ['SayHello, empty binary', `${ws}/grpc-ws`, [[], null, ''],
      { answers: [message('Hello ')], ...ok }],
    ['SayHello, JSON', `${ws}/grpc-ws`, ['{"name":"you"}', null, ''],
      { answers: ['{"message":"Hello you"}'], ...ok }],
    ['SayHello, both', `${ws}/grpc-ws/helloworld.Greeter/SayHello`, ['{"name":"a"}', message('b'), '{"name":"c"}', ''],
      { answers: ['{"message":"Hello a"}', message('Hello b'), '{"message":"Hello c"}'], ...ok }],
    ['Echo', `${echo}/Echo`, ['{"message":"a"}', '{"message":"b"}', ''],
      { answers: ['{"message":"a"}', '{"message":"b"}'], ...ok }],
    ['Expand', `${echo}/Expand`, ['{"message":"a","count":3,"interval":"0.02s"}'],
      { answers: Array(3).fill('{"message":"a"}'), ...ok }],
    ['Collect', `${echo}/Collect`, ['{"message":"a"}', '{"message":"b"}', ''],
      { answers: ['{"messages":["a","b"]}'], ...ok }],
    ['Converse', `${echo}/Converse`, ['{"message":"a"}', null, '{"message":"b"}', null, message('c'), null, ''],
      { answers: ['{"message":"a"}', '{"message":"b"}', message('c')], ...ok }],
    ['Converse, no message', `${echo}/Converse`, [''], { answers: [], ...ok }],
    ['Expand, invalid', `${echo}/Expand`, ['{"interval":"-1s"}'],
      { answers: [], code: 4003, reason: 'echo: interval: -1s is negative' }],
  ];
  for (const [name, url, script, want] of cases) {
    await check(`${ws}: ${name}`, want, () => talk(page, url, script));
  }

  // Chromium sends a large message in many frames.
  const limit = 4 << 20;
  for (const [size, want] of [[limit, [limit, 1000]], [limit + 1, [0, 1009]]]) {
    await check(`${ws}: /ws, a message of ${size} bytes`, want, () => page.evaluate(([url, size]) => new Promise((resolve) => {
      const socket = new WebSocket(url);
      let length = 0;
      socket.onopen = () => socket.send('x'.repeat(size));
      socket.onmessage = ({ data }) => { length = data.length; socket.close(1000); };
      socket.onclose = ({ code }) => resolve([length, code]);
    }), [`${ws}/ws`, size]));
  }

  await check(`${ws}: 20 sockets at once`, Array(20).fill('{"message":"Hello you"}'), () => Promise.all(
    Array.from({ length: 20 }, async () => (await talk(page, `${ws}/grpc-ws`, ['{"name":"you"}', null, ''])).answers[0])));

  await check(`${ws}: unknown method`, [1006, '404'], () => refusal(page, `${echo}/Nothing`));
  await page.close();
  await checkWasm(context, check, http, ws, `${work}/wasm`);
}

async function foreign() {
  // To a browser an address is another site than the name that stands for it,
  // and so is the same name under another scheme. This page, unlike the welcome
  // page, has no policy that keeps the browser from trying.
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${port}/healthz`);
  await check('own origin by address', ['hello'],
    async () => (await talk(page, `ws://127.0.0.1:${port}/ws`, ['hello', null, { close: 1000 }])).answers);
  for (const path of ['/ws', '/grpc-ws', '/grpc-ws-tunnel']) {
    await check(`foreign host, ${path}`, [1006, '403'], () => refusal(page, `ws://localhost:${port}${path}`));
    await check(`foreign scheme, ${path}`, [1006, '403'], () => refusal(page, `wss://127.0.0.1:${port}${path}`));
  }
  await check('foreign host, fetch', 'TypeError', () => page.evaluate(
    (url) => fetch(url).then(() => 'was let through', (err) => err.name), `http://localhost:${port}/healthz`));
  await page.close();
}

await road(`http://localhost:${port}`, `ws://localhost:${port}`, 'http/1.1');
await road(`https://localhost:${port}`, `wss://localhost:${port}`, 'h2');
await foreign();
await checkStreams(browser, check, talk, refusal, streamsPort); // first, since it counts connections
await checkClients(browser, context, check, appPort, openPort, streamsPort);
await checkTransport(context, check, work);
await checkEvents(context, check, port);
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

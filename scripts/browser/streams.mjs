// WebSockets on streams of HTTP/2 (RFC 8441), which Chromium opens where it has an HTTP/2
// connection to a server that offers them.

/** Opens sockets of every kind on a page of the server, and counts its connections. */
export async function checkStreams(browser, check, talk, refusal, port) {
  for (const secure of [true, false]) {
    const http = `http${secure ? 's' : ''}://localhost:${port}`;
    const ws = `ws${secure ? 's' : ''}://localhost:${port}`;
    // A context of its own has connections of its own.
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await page.goto(`${http}/app/`);
    const ok = { code: 1000, reason: '' };
    for (const [name, url, script, want] of [
      ['/ws', `${ws}/ws`, ['grüß dich', null, [0, 255], null, { close: 1000 }], { answers: ['grüß dich', [0, 255]], ...ok }],
      ['/ws, close', `${ws}/ws`, [{ close: 3456 }], { answers: [], code: 3456, reason: '' }],
      ['/grpc-ws', `${ws}/grpc-ws/echo.v1.EchoService/Converse`, ['{"message":"a"}', null, '{"message":"b"}', null, ''],
        { answers: ['{"message":"a"}', '{"message":"b"}'], ...ok }],
      ['/grpc-ws, error', `${ws}/grpc-ws/echo.v1.EchoService/Expand`, ['{"interval":"-1s"}'],
        { answers: [], code: 4003, reason: 'echo: interval: -1s is negative' }],
      ["a program's handler", `${ws}/chat`, ['hello', null, null, { close: 1000 }], { answers: ['HTTP/1.1', 'hello'], ...ok }],
    ]) {
      await check(`${ws}, streams: ${name}`, want, () => talk(page, url, script));
    }
    await check(`${ws}, streams: unknown method`, [1006, '404'], () => refusal(page, `${ws}/grpc-ws/x.Y/Z`));
    await check(`${ws}, streams: 4 MiB`, 4 << 20, () => page.evaluate((url) => new Promise((resolve) => {
      const socket = new WebSocket(url);
      socket.onopen = () => socket.send('x'.repeat(4 << 20));
      socket.onmessage = ({ data }) => { resolve(data.length); socket.close(); };
      socket.onclose = ({ code }) => resolve(code);
    }), `${ws}/ws`));
    await page.evaluate(() => window.openTransport(location.origin));
    await check(`${ws}, streams: 200 bidi calls at once of our transport`, 200, () => page.evaluate(() => window.converseAtOnce(200)));
    // In cleartext Chromium speaks HTTP/1.1. Sockets that a program has hijacked do not
    // count then, which leaves 20.
    await check(`${ws}, streams: connections of page, fetches, our transport and 30 sockets`, secure ? 'one' : 'many', () => page.evaluate(async (ws) => {
      const paths = ['/ws', '/grpc-ws/echo.v1.EchoService/Converse', '/chat'];
      self.sockets = Array.from({ length: 30 }, (_, i) => new WebSocket(ws + paths[i % 3]));
      await Promise.all(self.sockets.map((socket) => new Promise((resolve, reject) => {
        socket.onopen = () => fetch('/healthz').then(resolve, reject);
        socket.onclose = ({ code }) => reject(new Error(`${socket.url}: ${code}`));
      })));
      await window.beginCall();
      const { open } = await (await fetch('/connections')).json();
      return open === 1 ? 'one' : open > 20 ? 'many' : open;
    }, ws));
    await context.close();
  }
}

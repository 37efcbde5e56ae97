// A browser's EventSource: a server stream by GET, resumed after the connection was cut.
import net from 'node:net';

const count = 20;
const path = `/v1/echo/hi:expand?count=${count}&interval=0.02s`;

/** Receives the stream on a page whose connections are cut after the fifth message. */
export async function checkEvents(context, check, port) {
  const cutter = await Cutter.before(port);
  for (const scheme of ['http', 'https']) {
    const page = await context.newPage();
    const lasts = []; // Last-Event-ID of each request
    page.on('request', (request) => {
      if (request.url().includes(path)) {
        lasts.push(request.headerValue('last-event-id'));
      }
    });
    await page.exposeFunction('cut', () => cutter.cut());
    await page.goto(`${scheme}://localhost:${cutter.port}/healthz`);
    await check(`${scheme}: EventSource`, {
      ids: Array.from({ length: count }, (_, i) => `${i + 1}`),
      messages: ['hi'],
      status: { code: 0, message: '', details: [] },
      opened: 2,
    }, () => page.evaluate((path) => new Promise((resolve, reject) => {
      const source = new EventSource(path);
      const result = { ids: [], messages: [], opened: 0 };
      setTimeout(() => reject(new Error(`not over after 60 s: ${JSON.stringify(result)}`)), 60_000);
      source.onopen = () => { result.opened++; };
      source.onmessage = ({ data, lastEventId }) => {
        const { message } = JSON.parse(data);
        result.ids.push(lastEventId);
        if (!result.messages.includes(message)) {
          result.messages.push(message);
        }
        if (result.ids.length === 5) {
          window.cut();
        }
      };
      source.addEventListener('status', ({ data }) => { result.status = JSON.parse(data); });
      // It asks again by itself until it is told that there is nothing more.
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) {
          resolve(result);
        }
      };
    }), path));
    // More may have come before the cut.
    await check(`${scheme}: EventSource, what it says`, [null, 'a number', 'end'], async () => (await Promise.all(lasts))
      .map((id) => (/^\d+$/.test(id) ? 'a number' : id)));
    await page.close();
  }
  await cutter.close();
}

/** A proxy that knows nothing of what passes, and can cut it off. */
class Cutter {
  /** Listens on a free port and connects to the given one. */
  static async before(port) {
    const cutter = new Cutter();
    cutter.sockets = new Set();
    cutter.server = net.createServer((client) => {
      const server = net.connect(port, '127.0.0.1');
      for (const [from, to] of [[client, server], [server, client]]) {
        cutter.sockets.add(from);
        from.pipe(to);
        from.on('error', () => {}); // close follows
        from.on('close', () => {
          cutter.sockets.delete(from);
          to.destroy();
        });
      }
    });
    await new Promise((resolve) => { cutter.server.listen(0, '127.0.0.1', resolve); });
    cutter.port = cutter.server.address().port;
    return cutter;
  }

  cut() {
    for (const socket of this.sockets) {
      socket.destroy();
    }
  }

  async close() {
    const closed = new Promise((resolve) => { this.server.close(resolve); });
    this.cut();
    await closed;
  }
}

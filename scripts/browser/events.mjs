// A browser's EventSource on a server stream, whose connection is cut.
import net from 'node:net';

/**
 * Reads a stream of five events through a relay that cuts the connection after the second.
 * The browser connects again by itself and names the last event; after the end it does so
 * once more, and is told to let go.
 */
export async function checkEvents(context, check, port) {
  const lasts = []; // Last-Event-ID of each request
  let cuts = 0;
  const relay = net.createServer((client) => {
    const server = net.connect(port, '127.0.0.1');
    for (const socket of [client, server]) socket.on('error', () => {});
    client.on('data', (data) => {
      if (data.includes('GET /v1/')) lasts.push(/^last-event-id: (.*?)\r$/im.exec(data.toString())?.[1] ?? null);
      server.write(data);
    });
    server.on('data', (data) => {
      client.write(data);
      if (cuts === 0 && data.includes('id: 2\n')) {
        cuts++;
        client.resetAndDestroy();
        server.destroy();
      }
    });
    client.on('close', () => server.destroy());
    server.on('close', () => client.end());
  });
  await new Promise((resolve) => relay.listen(0, '127.0.0.1', resolve));
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${relay.address().port}/healthz`);
  await check('EventSource, cut and resumed', {
    messages: [['1', 'hi'], ['2', 'hi'], ['3', 'hi'], ['4', 'hi'], ['5', 'hi']], ends: [0], closed: true,
  }, () => page.evaluate(() => new Promise((resolve) => {
    const source = new EventSource('/v1/echo/hi:expand?count=5&interval=0.2s');
    const messages = [];
    const ends = [];
    source.onmessage = ({ lastEventId, data }) => messages.push([lastEventId, JSON.parse(data).message]);
    source.addEventListener('status', ({ data }) => ends.push(JSON.parse(data).code));
    const tell = () => resolve({ messages, ends, closed: source.readyState === EventSource.CLOSED });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) tell(); };
    setTimeout(tell, 20_000);
  })));
  await check('EventSource, what it says', [null, '2', 'end'], () => lasts);
  await page.close();
  relay.close();
}

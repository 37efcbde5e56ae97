// Our client of grpc-ws.v1 in a page: many calls on one socket, and a server that is
// killed and started again. The table of clients.mjs has the rest.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** Takes a directory with the command, oneport, and the page's script, app/main.js. */
export async function checkTransport(context, check, dir) {
  for (const scheme of ['http', 'https']) {
    let server = await start(dir, 0);
    const { port } = server;
    const base = `${scheme}://localhost:${port}`;
    const page = await context.newPage();
    const errors = [];
    page.on('pageerror', (err) => errors.push(String(err))); // rejections that nobody handles as well
    let sockets = 0;
    page.on('websocket', () => { sockets++; });
    await page.goto(`${base}/healthz`);
    await page.addScriptTag({ path: `${dir}/app/main.js` });
    await page.evaluate((base) => window.openTransport(base), base);

    await check(`${base}: 200 bidi calls at once on one socket`, { answered: 200, sockets: 1 }, async () => (
      { answered: await page.evaluate(() => window.converseAtOnce(200)), sockets }));
    await page.evaluate(() => window.beginCall());
    server.kill('SIGKILL');
    await once(server, 'exit');
    await check(`${base}: a bidi call when the server is killed`, 14, () => page.evaluate(() => window.callEnded));
    await check(`${base}: a call while there is no server`, 14, () => page.evaluate(() => window.echoOnce('a')));
    server = await start(dir, port);
    await check(`${base}: a call to the next server`, 'b', () => page.evaluate(() => window.echoOnce('b')));
    await check(`${base}: states of the socket`, [['connecting', 'ready', 'waiting', 'connecting'], 'ready'],
      () => page.evaluate(() => [window.states.slice(0, 4), window.states.at(-1)]));
    await check(`${base}: errors that nobody handled`, [], () => errors);

    await page.close();
    server.kill('SIGTERM');
    await once(server, 'exit');
    await check(`${base}: exit code of the server`, 0, () => server.exitCode);
  }
}

/** Starts the command on a port, any if it is 0, and returns its process, with the port. */
async function start(dir, port) {
  const file = `${dir}/transport.addr`;
  await rm(file, { force: true });
  const server = spawn(`${dir}/oneport`, ['--addr', `127.0.0.1:${port}`, '--addr-file', file, '--cert-dir', `${dir}/certs`,
    '--drain-delay', '0s', '--log-level', 'warn'], { stdio: ['ignore', 'inherit', 'inherit'] });
  process.once('exit', () => server.kill('SIGKILL'));
  for (;;) {
    const addr = await readFile(file, 'utf8').catch(() => '');
    if (addr) {
      return Object.assign(server, { port: Number(addr.trim().split(':').at(-1)) });
    }
    if (server.exitCode !== null) {
      throw new Error(`oneport: exit code ${server.exitCode}`);
    }
    await sleep(50);
  }
}

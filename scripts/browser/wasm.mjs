// A Go program in a page: grpc-go's own transport, through a tunnel.
import path from 'node:path';

/** Runs dir/client.wasm, which is wasm/main.go, on a page of the origin http. */
export async function checkWasm(context, check, http, ws, dir) {
  const page = await context.newPage();
  const lines = [];
  page.on('console', (message) => lines.push(message.text()));
  await page.route('**/client.wasm', (route) => route.fulfill({
    path: path.join(dir, 'client.wasm'), contentType: 'application/wasm' }));
  await page.goto(`${http}/healthz`);
  await page.addScriptTag({ path: path.join(dir, 'wasm_exec.js') });
  await check(`${ws}: grpc-go in wasm`, [
    'Hello you',
    'echo of 3 MiB: true',
    '100 turns',
    'InvalidArgument echo: interval: -1s is negative',
  ], async () => {
    await page.evaluate(async (url) => {
      const go = new Go();
      go.argv = ['client', url];
      const { instance } = await WebAssembly.instantiateStreaming(fetch('/client.wasm'), go.importObject);
      await go.run(instance);
    }, `${ws}/grpc-ws-tunnel`);
    return lines;
  });
  await page.close();
}

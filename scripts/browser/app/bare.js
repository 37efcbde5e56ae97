// No library: what a page can do with fetch and WebSocket alone, in JSON.
import { toJson, fromJson } from '@bufbuild/protobuf'; // only to have messages as the other clients have them

/** Calls by the paths of google.api.http, and reads a stream line by line. */
export async function fetchREST(base, method, request, { metadata, timeoutMs, signal, onHeader, onTrailer, onMessage }) {
  const headers = { 'content-type': 'application/json', ...metadata, ...(timeoutMs && { 'grpc-timeout': `${timeoutMs}m` }) };
  const paths = { Echo: '/v1/echo', Expand: '/v1/echo:expand', Collect: '/v1/echo:collect' };
  let body;
  if (method.methodKind === 'client_streaming') {
    headers['content-type'] = 'application/x-ndjson';
    body = '';
    for await (const message of request) {
      body += `${JSON.stringify(toJson(method.input, message))}\n`;
    }
  } else {
    body = JSON.stringify(toJson(method.input, request));
  }
  const response = await fetch(base + paths[method.name], { method: 'POST', headers, body, signal })
    .catch((err) => { throw { code: err.name, message: err.message }; });
  const values = Object.fromEntries(response.headers);
  onHeader(values);
  onTrailer(Object.fromEntries(Object.entries(values).filter(([key]) => key.startsWith('trailer-'))
    .map(([key, value]) => [key.slice('trailer-'.length), value])));
  const fail = ({ code, message, details }) => { throw { code, message, details: details.map((d) => parseFloat(d.value)) }; };
  if (!response.ok) {
    fail(await response.json());
  }
  if (method.methodKind !== 'server_streaming') {
    onMessage(fromJson(method.output, await response.json()));
    return;
  }
  const lines = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ''; ;) {
    const { done, value } = await lines.read().catch((err) => { throw { code: err.name, message: err.message }; });
    if (done) {
      return;
    }
    text += value;
    for (let end; (end = text.indexOf('\n')) >= 0; text = text.slice(end + 1)) {
      const { result, error } = JSON.parse(text.slice(0, end));
      if (error) {
        fail(error);
      }
      onMessage(fromJson(method.output, result));
    }
  }
}

/** Makes one call of grpc-ws.v1 on a WebSocket of its own. */
export function webSocket(base, method, request, { metadata, timeoutMs, signal, onHeader, onTrailer, onMessage }) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(`${base.replace('http', 'ws')}/grpc-ws`, 'grpc-ws.v1');
    const send = (frame) => ws.send(JSON.stringify({ call: 1, ...frame }));
    const lists = (metadata) => Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, [value]]));
    const values = (metadata = {}) => Object.fromEntries(Object.entries(metadata).map(([key, [value]]) => [key, value]));
    ws.onopen = async () => {
      send({ open: { method: `${method.parent.typeName}/${method.name}`, metadata: lists(metadata), ...(timeoutMs && { timeoutMs }) } });
      // A library would wait for credit. Here either little is sent, or no more before the answer.
      for await (const message of Symbol.asyncIterator in request ? request : [request]) {
        send({ message: toJson(method.input, message) });
      }
      send({ halfClose: true });
    };
    ws.onmessage = ({ data }) => {
      const { header, message, end } = JSON.parse(data);
      if (header) {
        onHeader(values(header.metadata));
      }
      if (message) {
        onMessage(fromJson(method.output, message));
        send({ credit: data.length }); // or the server sends no more than 64 KiB
      }
      if (end) {
        ws.close();
        onTrailer(values(end.trailer));
        const details = (end.details ?? []).map(({ value }) => atob(value).charCodeAt(1)); // field 1, one byte
        end.code ? reject({ code: end.code, message: end.message, details }) : resolve();
      }
    };
    ws.onclose = ({ code, reason }) => reject({ code, message: reason });
    signal.addEventListener('abort', () => { ws.close(); reject({ code: 'AbortError', message: '' }); });
  });
}

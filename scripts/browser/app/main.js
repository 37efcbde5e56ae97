// What clients.mjs runs in the page: one call by one of the clients, told as plain data.
import { fromJson } from '@bufbuild/protobuf';
import { EchoService } from 'gen/echo/echo_pb.ts';
import { fetchREST, webSocket } from './bare.js';
import { composite, connect, grpcWeb, grpcWs } from './connect.js';
import { google } from './grpcweb.js';
import { improbableFetch, improbableWebSocket } from './improbable.js';
import { niceFetch, niceWebSocket } from './nice.js';
import './transport.js';

// A client is a function of the server's address, the method, the request, which is an
// async iterable of them where the client streams, and
// { metadata, timeoutMs, signal, onHeader, onTrailer, onMessage }, whose promise is
// rejected with { code, message, details }: details if they are decoded, of a
// google.protobuf.Duration its seconds. Values of keys in "-bin" are base64 in metadata; a
// client may give them as bytes.
const clients = {
  'connect-web, Connect': connect({ useBinaryFormat: true }),
  'connect-web, Connect JSON': connect(),
  'connect-web, Connect GET': connect({ useBinaryFormat: true, useHttpGet: true }),
  'connect-web, credentials': connect({ fetch: (url, init) => fetch(url, { ...init, credentials: 'include' }) }),
  'connect-web, gRPC-Web': grpcWeb(),
  'connect-web, gRPC-Web JSON': grpcWeb({ useBinaryFormat: false }),
  'grpc-web, binary': google('binary'),
  'grpc-web, text': google('text'),
  '@improbable-eng, fetch': improbableFetch,
  '@improbable-eng, WebSocket': improbableWebSocket,
  'nice-grpc-web': niceFetch,
  'nice-grpc-web, WebSocket': niceWebSocket,
  'grpc-ws.v1': grpcWs(),
  'grpc-ws.v1, JSON': grpcWs({ useBinaryFormat: false }),
  'grpc-ws.v1, socket a call': grpcWs({ socketPerCall: true }),
  'grpc-ws.v1 and fetch': composite(),
  'no library, WebSocket': webSocket,
  'no library, fetch': fetchREST,
};

let controller;

/** Cancels the last call. */
window.cancel = () => controller.abort();

/**
 * Makes a call and returns { messages, code, header, trailer } or, if it failed,
 * { messages, code, error, trailer }. Of header and trailer it keeps what the test
 * server adds.
 *
 * @param request in protobuf's JSON; where the client streams an array, of which in a
 *   bidi stream each waits for the answer to the one before
 * @param metadata what the client shall send; bytes are in base64
 * @param cancelAfter the number of messages after which it shall cancel
 */
window.call = async (client, base, method, request, { metadata = {}, timeoutMs, cancelAfter } = {}) => {
  controller = new AbortController();
  const overdue = setTimeout(() => controller.abort(), 60_000); // or it would hold up all others
  const messages = [];
  let header = {};
  let trailer = {};
  const options = {
    metadata, timeoutMs, signal: controller.signal,
    onHeader: (values) => { header = values; },
    onTrailer: (values) => { trailer = values; },
    onMessage: (answer) => {
      if (messages.push(answer.message ?? answer.messages) === cancelAfter) {
        window.cancel();
      }
      arrived();
    },
  };
  const descriptor = EchoService.method[method];
  let arrived = () => {};
  async function* requests() {
    for (const [i, one] of request.entries()) {
      while (descriptor.methodKind === 'bidi_streaming' && messages.length < i) {
        await new Promise((resolve) => { arrived = resolve; });
      }
      yield fromJson(descriptor.input, one);
    }
  }
  try {
    await clients[client](base, descriptor,
      Array.isArray(request) ? requests() : fromJson(descriptor.input, request), options);
    return { messages, code: 0, header: added(header, 'test-'), trailer: added(trailer, 'test-') };
  } catch (err) {
    // What a client gives as an error's metadata may have the header in it.
    const details = err.details ?? bytes(trailer['grpc-status-details-bin'] ?? '');
    return {
      messages, code: err.code, error: err.message, trailer: added(trailer, 'test-trailer'),
      ...(details.length > 0 && { details }),
    };
  } finally {
    clearTimeout(overdue);
  }
};

/** The values whose keys begin with prefix; those of bytes as arrays. */
function added(values, prefix) {
  return Object.fromEntries(Object.entries(values).filter(([key]) => key.startsWith(prefix))
    .map(([key, value]) => [key, key.endsWith('-bin') ? bytes(value) : value]));
}

/** The bytes of a value as a client gives it: as they are, or in base64. */
function bytes(value) {
  return typeof value === 'string' ? [...atob(value)].map((c) => c.charCodeAt(0)) : [...value];
}

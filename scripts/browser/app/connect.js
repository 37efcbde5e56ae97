// Connect-ES, with the two transports of @connectrpc/connect-web and with ours.
import { ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import { DurationSchema } from '@bufbuild/protobuf/wkt';
import { createCompositeTransport, createGrpcWsTransport } from 'oneport-grpc-ws';
import { EchoService } from 'gen/echo/echo_pb.ts';

export const connect = (options) => caller((baseUrl) => createConnectTransport({ baseUrl, ...options }));
export const grpcWeb = (options) => caller((baseUrl) => createGrpcWebTransport({ baseUrl, ...options }));
export const grpcWs = (options) => caller((baseUrl) => createGrpcWsTransport({ baseUrl, ...options }));
export const composite = () => caller((baseUrl) => createCompositeTransport({
  unary: createConnectTransport({ baseUrl }), stream: createGrpcWsTransport({ baseUrl }),
}));

function caller(createTransport) {
  const clients = new Map(); // one for each server, since a transport may keep a socket
  return async (baseUrl, method, request, { metadata, timeoutMs, signal, onHeader, onTrailer, onMessage }) => {
    if (!clients.has(baseUrl)) {
      clients.set(baseUrl, createClient(EchoService, createTransport(baseUrl)));
    }
    const client = clients.get(baseUrl);
    const values = (headers) => Object.fromEntries(headers);
    const options = {
      headers: metadata, timeoutMs, signal,
      onHeader: (headers) => onHeader(values(headers)),
      onTrailer: (headers) => onTrailer(values(headers)),
    };
    try {
      if (method.methodKind === 'unary' || method.methodKind === 'client_streaming') {
        onMessage(await client[method.localName](request, options));
        return;
      }
      for await (const message of client[method.localName](request, options)) {
        onMessage(message);
      }
    } catch (err) {
      const error = ConnectError.from(err);
      onTrailer(values(error.metadata));
      const details = error.findDetails(DurationSchema).map(({ seconds }) => Number(seconds));
      throw { code: error.code, message: error.rawMessage, details };
    }
  };
}

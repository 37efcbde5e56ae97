// @connectrpc/connect-web, with each of its two transports.
import { ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import { service } from './echo.js';

export const connect = (options) => caller(createConnectTransport, options);
export const grpcWeb = (options) => caller(createGrpcWebTransport, options);

function caller(createTransport, transportOptions) {
  return async (baseUrl, method, request, { metadata, timeoutMs, signal, onHeader, onTrailer, onMessage }) => {
    const client = createClient(service, createTransport({ baseUrl, ...transportOptions }));
    const values = (headers) => Object.fromEntries(headers);
    const options = {
      headers: metadata, timeoutMs, signal,
      onHeader: (headers) => onHeader(values(headers)),
      onTrailer: (headers) => onTrailer(values(headers)),
    };
    try {
      if (method.methodKind === 'unary') {
        onMessage(await client[method.localName](request, options));
        return;
      }
      for await (const message of client[method.localName](request, options)) {
        onMessage(message);
      }
    } catch (err) {
      const { code, rawMessage, metadata } = ConnectError.from(err);
      onTrailer(values(metadata));
      throw { code, message: rawMessage };
    }
  };
}

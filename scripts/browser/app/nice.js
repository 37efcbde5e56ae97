// nice-grpc-web, over one of its transports. What a code generator would make, the
// definition of the service, is made here from protobuf-es's.
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { ClientError, createChannel, createClient, FetchTransport, Metadata, WebsocketTransport } from 'nice-grpc-web';

export const niceFetch = (...call) => nice(FetchTransport(), ...call);
export const niceWebSocket = (...call) => nice(WebsocketTransport(), ...call);

async function nice(transport, base, method, request, { metadata, timeoutMs, signal, onHeader, onTrailer, onMessage }) {
  const definition = {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: (message) => toBinary(method.input, message),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    options: {},
  };
  const client = createClient({ call: definition }, createChannel(base, transport));
  const sent = Metadata();
  for (const [key, value] of Object.entries(metadata)) {
    sent.set(key, key.endsWith('-bin') ? Uint8Array.from(atob(value), (c) => c.charCodeAt(0)) : value);
  }
  if (timeoutMs) {
    sent.set('grpc-timeout', `${timeoutMs}m`); // the client has no option for it
  }
  const values = (metadata) => Object.fromEntries([...metadata].map(([key, [value]]) => [key, value]));
  const options = {
    metadata: sent, signal,
    onHeader: (metadata) => onHeader(values(metadata)),
    onTrailer: (metadata) => onTrailer(values(metadata)),
  };
  try {
    if (definition.responseStream) {
      for await (const message of client.call(request, options)) {
        onMessage(message);
      }
    } else {
      onMessage(await client.call(request, options));
    }
  } catch (err) {
    throw err instanceof ClientError ? { code: err.code, message: err.details } : { code: err.name, message: err.message };
  }
}

// nice-grpc-web, over fetch. What a code generator would make, the definition of the
// service, is made here from protobuf-es's.
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { ClientError, createChannel, createClient, Metadata } from 'nice-grpc-web';

export async function nice(base, method, request, { metadata, timeoutMs, signal, onHeader, onTrailer, onMessage }) {
  const definition = {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream: false,
    responseStream: method.methodKind === 'server_streaming',
    requestSerialize: (message) => toBinary(method.input, message),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    options: {},
  };
  const client = createClient({ call: definition }, createChannel(base));
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

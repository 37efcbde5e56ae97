// @improbable-eng/grpc-web, over one of its transports. What a code generator would make,
// the messages of google-protobuf, is made here from protobuf-es's.
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { grpc } from '@improbable-eng/grpc-web';

export const improbableFetch = improbable(grpc.CrossBrowserHttpTransport({}));
export const improbableWebSocket = improbable(grpc.WebsocketTransport());

function improbable(transport) {
  return (host, method, request, { metadata, timeoutMs, signal, onHeader, onTrailer, onMessage }) => new Promise((resolve, reject) => {
    const client = grpc.client({
      methodName: method.name,
      service: { serviceName: method.parent.typeName },
      requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
      responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
      responseType: { deserializeBinary: (bytes) => fromBinary(method.output, bytes) },
    }, { host, transport });
    const values = (headers) => Object.fromEntries(Object.entries(headers.headersMap).map(([key, [value]]) => [key, value]));
    client.onHeaders((headers) => onHeader(values(headers)));
    client.onMessage(onMessage);
    client.onEnd((code, message, trailers) => {
      onTrailer(values(trailers));
      (code === grpc.Code.OK ? resolve : reject)({ code, message });
    });
    // Nothing is heard of a call that has been closed.
    signal.addEventListener('abort', () => { client.close(); resolve(); });
    const sent = new grpc.Metadata(metadata);
    if (timeoutMs) {
      sent.set('grpc-timeout', `${timeoutMs}m`); // the client has no option for it
    }
    client.start(sent);
    const send = (message) => client.send({ serializeBinary: () => toBinary(method.input, message) });
    (async () => {
      for await (const message of Symbol.asyncIterator in request ? request : [request]) {
        send(message);
      }
      client.finishSend();
    })().catch(reject);
  });
}

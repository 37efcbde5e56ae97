// Google's grpc-web, in each of its two formats. What its code generator would make,
// the descriptors of the methods, is made here from protobuf-es's.
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { GrpcWebClientBase, MethodDescriptor, MethodType } from 'grpc-web';

export function google(format) {
  return async (base, method, request, options) => {
    const unary = method.methodKind === 'unary';
    const path = `/${method.parent.typeName}/${method.name}`;
    const descriptor = new MethodDescriptor(
      path, unary ? MethodType.UNARY : MethodType.SERVER_STREAMING, Object, Object,
      (message) => toBinary(method.input, message), (bytes) => fromBinary(method.output, bytes));
    const metadata = { ...options.metadata };
    if (options.timeoutMs) {
      metadata.deadline = String(Date.now() + options.timeoutMs);
    }
    try {
      await (unary ? unaryCall : streamingCall)(format, base + path, request, metadata, descriptor, options);
    } catch (err) {
      options.onTrailer(err.metadata ?? {});
      throw err;
    }
  };
}

async function unaryCall(format, url, request, metadata, descriptor, { signal, onHeader, onTrailer, onMessage }) {
  // The promise is for the message alone; the rest is shown to interceptors only.
  const interceptor = {
    async intercept(request, invoker) {
      const response = await invoker(request);
      onHeader(response.getMetadata());
      onTrailer(response.getStatus().metadata);
      return response;
    },
  };
  const client = new GrpcWebClientBase({ format, unaryInterceptors: [interceptor] });
  onMessage(await client.unaryCall(url, request, metadata, descriptor, { signal }));
}

function streamingCall(format, url, request, metadata, descriptor, { signal, onHeader, onTrailer, onMessage }) {
  const stream = new GrpcWebClientBase({ format }).serverStreaming(url, request, metadata, descriptor);
  return new Promise((resolve, reject) => {
    stream.on('metadata', onHeader);
    stream.on('data', onMessage);
    stream.on('status', (status) => onTrailer(status.metadata ?? {}));
    stream.on('error', reject);
    stream.on('end', resolve);
    // Nothing is heard of a stream that has been cancelled.
    signal.addEventListener('abort', () => { stream.cancel(); resolve(); });
  });
}

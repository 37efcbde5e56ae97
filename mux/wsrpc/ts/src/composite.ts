import type { Transport } from "@connectrpc/connect";

/**
 * Makes a transport that makes unary calls by one transport, such as one of fetch, and all
 * others by another, such as that of a socket.
 */
export function createCompositeTransport({ unary, stream }: { unary: Transport; stream: Transport }): Transport {
  return { unary: unary.unary.bind(unary), stream: stream.stream.bind(stream) };
}

export type { ConnectionState } from "./channel.js";
export { createCompositeTransport } from "./composite.js";
export type { WebSocketLike } from "./socket.js";
export { createGrpcWsTransport } from "./transport.js";
export type { GrpcWsTransport, GrpcWsTransportOptions } from "./transport.js";

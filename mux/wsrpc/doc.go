// Package wsrpc carries gRPC calls over WebSocket, in three forms.
//
// # Many calls on a socket
//
// A client that opens /grpc-ws with the subprotocol grpc-ws.v1 makes any number of
// calls there, at the same time and of all four kinds, with all that gRPC has:
// metadata both ways, deadlines, cancellation, details of a status, flow control. The
// wire is specified in PROTOCOL.md, for clients in any language.
//
// The goroutine that reads the socket takes frames apart and never waits for a call
// (calls.go); what a handler does not receive in time waits within the credit that the
// client has (credit.go). Calls run on workers, goroutines that keep their grown stacks
// from one call to the next: those of a socket as long as it has calls (crew.go), then, for
// a second or so, of whichever needs one (worker.go). An idle socket has no
// goroutine, or where it is not plain TCP its reader only.
//
// What a call has to say leaves in as few frames as possible: the answer of a unary
// call with its header, trailer and status in one (call.go).
//
// [Dial] makes calls to such a server: client.go has connections, client_socket.go one
// of them, client_call.go its calls.
//
// # What a peer can make a socket hold
//
// Of a client, at the server: one WebSocket message that is being read; of messages that
// handlers have not received a window of 64 KiB for each of 256 calls, and one message
// more, 4 MiB by default, in all calls together (backlog.go), in buffers of twice their
// size or 16 KiB; the metadata of each call, 16 KiB, and that of the handshake and the last
// hello; of the last open its metadata and the name of its method, up to 1 KiB of each;
// handlers of 256 more calls that it has cancelled and that do not end; 64 KiB of
// answers that wait and as much that is being written, with one answer in the hands of
// each handler, and 100 refusals of calls with either. An empty message is counted for 16
// bytes and takes 40.
//
// Of a server, at the client: 64 KiB of the answer to the handshake; one WebSocket
// message that is being read; for each call its window and one message more, and a
// header and a trailer in frames of 64 KiB beside their messages, which grow by being
// decoded; 64 KiB of requests that wait, one message more, and 1024 pongs. A socket
// after goAway is kept for the calls that it has, and no longer.
//
// # One method a connection
//
// A client that opens /grpc-ws/{service}/{method} talks to that one method, of
// any of the four kinds. It needs no library and no annotation in the .proto:
//
//   - A binary message is a protobuf request, a text message the same in JSON.
//     Answers come in the kind of the last request that the handler has
//     received, before that of the first message sent; a handler that speaks
//     before either speaks binary.
//   - An empty text message half-closes: the client has nothing more to send.
//     (An empty binary message is a request whose fields all have their default.)
//   - On a unary method each message is a call of its own; the answers come in
//     the order of the requests.
//   - A call begins with its first message, which must come within 10 s, else with
//     the socket if the client streams.
//   - The end of the call is the close frame: 1000 for OK, else 4000 plus the
//     gRPC status code, with the status message as reason, cut to the 123 bytes
//     there is room for. A message above the limit ends with 1009, what is not
//     WebSocket or goes on after the half-close with 1002, no first message in
//     time with 4408, a server that is leaving with 1001.
//   - Request headers become metadata, and grpc-timeout the deadline: of the
//     call, on a unary method of each call.
//
// Header and trailer metadata of the server and the details of a status have no
// place in this form and are dropped.
//
// # gRPC-Web on a WebSocket
//
// A client that opens /{service}/{method} with the subprotocol grpc-websockets makes one
// call of that method there, as the WebSocket transports of @improbable-eng/grpc-web and
// nice-grpc-web do; the wire is theirs. All messages are binary.
//
//   - The first message of the client, which must come within 10 s, is the header: lines
//     "name: value" of HTTP/1, without an empty one at the end. They become metadata,
//     in place of a header of the handshake that has the same name; grpc-timeout is the
//     deadline.
//   - In each that follows a byte 0 stands before bytes of a gRPC-Web body (PROTOCOL-WEB.md
//     in the grpc repository): envelopes with flags 0, mostly one a message, but they
//     may be cut anywhere. A single byte 1 half-closes.
//   - The answer is such a body as well, of which each message has one frame: lines of the
//     header, with flags 0x80, then messages, then lines of the trailer, with flags 0x80,
//     which end with the status. The close frame after it has 1000, however the call ended.
//   - To close the socket is to cancel the call.
//   - What breaks these rules ends the call with a status, but text with 1003, a message
//     after the half-close with 1002, no header in time with 1008. A header of more than
//     64 KiB and a message that is 64 KiB above the limit are read no further: the status
//     comes at once, without the handler, and 1009. A server that is leaving closes sockets
//     without a header with 1001, and waits for the calls of the others.
//
// The metadata of a call has 16 KiB. Beside it and the WebSocket message that is being read
// a socket holds one that waits, or small ones of 64 KiB together, one that the handler
// takes from, and an envelope that has come in part; 64 KiB of answers that wait and as
// much that is being written, with one in the hands of the handler.
package wsrpc

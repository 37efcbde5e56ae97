// Package rest calls methods by HTTP and JSON, at the paths that their google.api.http
// options give (google/api/http.proto; AIP-127).
//
//	request ─► Handler ─► router ─► exchange ─► rpc.Method.Serve ─► handler
//	                                  ▲   │
//	                                  └───┘ path, query, body ─► RecvMsg
//	                                        SendMsg ─► JSON | lines | events | array | bytes
//
// # Routes
//
// A [Route] is one rule of a method. Routes are made when a service is added, from its
// descriptors: templates are parsed there and fields looked up, and what is wrong with a
// rule is found. A tree of segments finds the route of a request.
//
// # Conventions
//
// Names, values of parameters and the shape of errors are grpc-gateway's, so that clients
// of one can go to the other: google.rpc.Status in JSON, streams as lines of {"result":…}
// with {"error":…} as the last. Where they differ,
//
//   - which of two templates is preferred depends on these alone, not on their order;
//   - "*" is no empty segment, and a path with a segment "." or ".." is on no route;
//   - of what a variable of several segments captures all is unescaped but "%2F", as
//     http.proto says;
//   - what no parameter can be is an error that names the whole field, and in JSON too; a
//     google.rpc.BadRequest among its details does so for programs (AIP-193);
//   - a body needs the content type of JSON;
//   - metadata comes and goes by the names it has, without a prefix;
//   - what is at its default is not written in answers, unless options say so.
//
// # Streams
//
// A stream of answers tells at its end how the call went, in each form in a way of its own
// and, for clients that read it, in the trailer Grpc-Status. Each message is flushed; a
// client that does not read stops the handler. An event has for id the number of events
// before it and one. That of the end is "end", after which a client that asks again
// is sent away.
package rest

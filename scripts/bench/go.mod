// What calls cost a server, measured, in a module of its own so that it is no
// dependency of anyone who imports oneport.
module oneport/scripts/bench

go 1.26.0

require (
	github.com/gorilla/websocket v1.5.3
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.33.0
	golang.org/x/net v0.62.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
	oneport v0.0.0
	oneport/scripts/gateway v0.0.0
)

require (
	connectrpc.com/connect/v2 v2.0.2 // indirect
	github.com/soheilhy/cmux v0.1.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.16.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20261026165753-2ffab32bce7e // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b // indirect
)

replace (
	oneport => ../..
	oneport/scripts/gateway => ../gateway
)
